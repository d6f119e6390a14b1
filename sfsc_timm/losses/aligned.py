"""Embeddings of smaller widths that agree with the full width's."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import SubModelLoss
from .objective import Objective, Reference, SubModelOutput, cosine_distance
from .triplet import BatchHardTriplet


class Aligned(Objective):
    """As `Objective`, and embeddings of smaller sub-models have to agree with the full width's.

    Slimmable networks distil the full width's predictions in place (Yu and Huang, Universally Slimmable Networks, ICCV
    2019); where embeddings are compared across widths, it is these that have to agree. The metric form is that of
    Budnik and Avrithis, CVPR 2021. Whatever is compared with the full width does not train it.

    A sub-model may have run more images than have a target, those with one first: of the others it only learns the
    full width's embedding.

    Args:
        loss: On logits.
        triplet: As for `Objective`.
        triplet_weight: As for `Objective`.
        distill: Factor of 1 - cosine between a sub-model's and the full width's embedding of an image, in [0, 2]: of
            its mean over images with a target, and likewise of that over those without.
        cross: Factor of the triplet loss with a sub-model's anchors among the full width's embeddings.
        triplet_from: Number of the narrowest width, ascending, that has the triplet loss on its own embeddings. It
            makes a space better by itself, and pulls it away from the full width's.

    Raises:
        ValueError: If `cross` is asked for without a triplet loss.
    """

    uses_reference = True

    def __init__(
        self,
        loss: SubModelLoss,
        triplet: BatchHardTriplet | None = None,
        triplet_weight: float = 1.0,
        distill: float = 0.0,
        cross: float = 0.0,
        triplet_from: int = 0,
    ) -> None:
        super().__init__(loss, triplet, triplet_weight)
        if cross and triplet is None:
            raise ValueError(f'cross must be 0 without a triplet loss, got {cross}; give triplet, or leave cross out.')
        self.distill = distill
        self.cross = cross
        self.triplet_from = triplet_from

    def follow(
        self, index: int, output: SubModelOutput, target: Tensor, reference: Reference, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes loss and uncertainty, as `forward`, of a sub-model that looks up to the full-width model."""
        known = len(target)
        labelled = SubModelOutput(output.logits[:known], output.embedding[:known])
        loss, uncertainty = super().follow(index, labelled, target, reference.first(known), kl_scale)
        if self.distill and known < len(output.embedding):
            others = cosine_distance(output.embedding[known:], reference.embedding[known:])
            loss = loss + self.distill * others
        return loss, uncertainty

    def identify(
        self, index: int, logits: Tensor, embedding: Tensor, target: Tensor, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss on logits, with the triplet loss from `triplet_from` on."""
        if index < self.triplet_from:
            return self.loss.with_uncertainty(logits, target, kl_scale)
        return super().identify(index, logits, embedding, target, kl_scale)

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss of disagreement with the full width."""
        del kl_scale
        loss = embedding.new_zeros((), dtype=torch.float32)
        if self.distill:
            loss = loss + self.distill * cosine_distance(embedding, reference.embedding)
        if self.cross and self.triplet is not None:
            loss = loss + self.cross * self.triplet(embedding, target, reference.embedding)
        return loss
