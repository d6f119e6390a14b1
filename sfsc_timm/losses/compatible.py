"""The compatible losses that SFSC is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models._heads import classify_leading
from .base import SubModelLoss
from .objective import Objective, Reference, SubModelOutput, cosine_distance
from .triplet import BatchHardTriplet


class _Follower(Objective):
    """Full width is identified by its classifier; smaller sub-models have a classifier of their own and follow it.

    Args:
        loss: On logits.
        own: One classifier for each smaller sub-model, ascending, inside one switchable network; None for a network of
            its own, whose logits are those of its own classifier.
        weight: Factor of the compatible loss.
        **options: Of `Objective`.
    """

    uses_reference = True

    def __init__(
        self, loss: SubModelLoss, own: list[nn.Module] | None = None, weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(loss, **options)
        self.own = None if own is None else nn.ModuleList(own)
        self.weight = weight

    def follower_logits(self, index: int, output: SubModelOutput, reference: Reference) -> Tensor:
        """Logits of the sub-model's own classifier."""
        del reference
        return output.logits if self.own is None else classify_leading(self.own[index], output.embedding)


class BackwardCompatible(_Follower):
    """Backward-compatible training (Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020).

    A smaller sub-model's features also have to be classified by the full model's classifier, which they do not train
    (their influence loss, here with the roles of the SFSC paper: the full model is the fixed one).

    Args:
        loss: On logits.
        *args: `own` and `weight`, as below.
        alone: Whether the loss under the full model's classifier takes the place of the sub-model's own.
        **options: `own`, `weight`, and those of `Objective`.
    """

    def __init__(self, loss: SubModelLoss, *args: Any, alone: bool = False, **options: Any) -> None:
        super().__init__(loss, *args, **options)
        self.alone = alone

    def follower_logits(self, index: int, output: SubModelOutput, reference: Reference) -> Tensor:
        """Logits of the sub-model's own classifier, or of the reference's."""
        return reference.classify(output.embedding) if self.alone else super().follower_logits(index, output, reference)

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss of the features under the reference's classifier, where it comes on top of another."""
        if self.alone:
            return embedding.new_zeros((), dtype=torch.float32)
        return self.weight * self.loss(reference.classify(embedding), target, kl_scale)


class Asymmetric(_Follower):
    """Asymmetric metric learning (Budnik and Avrithis, CVPR 2021).

    A smaller sub-model's features, as queries, are compared with the full model's, as gallery, by a batch-hard triplet
    loss. Plain regression onto the full model's features, which they find to work best for asymmetric search, can be
    added.

    Args:
        loss: On logits.
        metric: The metric loss; None for the default margin.
        alone: Whether the metric loss is all that smaller sub-models learn by, as in that paper; otherwise it comes on
            top of a classification loss of their own, and of the triplet loss if there is one.
        regression: Factor of 1 - cosine between the features and the full model's, in [0, 2].
        **options: `own`, `weight`, and those of `Objective`.
    """

    def __init__(
        self,
        loss: SubModelLoss,
        metric: BatchHardTriplet | None = None,
        *,
        alone: bool = False,
        regression: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(loss, **options)
        self.metric = metric or BatchHardTriplet()
        self.alone = alone
        self.regression = regression

    def follow(
        self, index: int, output: SubModelOutput, target: Tensor, reference: Reference, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes a follower's loss and uncertainty, see `Objective`; alone, the latter is under the reference."""
        if not self.alone:
            return super().follow(index, output, target, reference, kl_scale)
        logits = reference.classify(output.embedding.detach())
        _, uncertainty = self.loss.with_uncertainty(logits, target, kl_scale)
        return self.compatible(output.embedding, target, reference, kl_scale), uncertainty

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss between the features and the reference's."""
        del kl_scale
        loss: Tensor = self.weight * self.metric(embedding, target, reference.embedding)
        if self.regression:
            loss = loss + self.regression * cosine_distance(embedding, reference.embedding)
        return loss
