"""What a sub-model is trained for: losses on its logits, its embeddings, and those of a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .base import SubModelLoss
from .triplet import BatchHardTriplet


class SubModelOutput(NamedTuple):
    """What a sub-model makes of a batch.

    Attributes:
        logits: `(B, C)` of the shared classifier.
        embedding: `(B, D)`, not normalised.
        classify: From the first d numbers of embeddings `(B, d)` to logits `(B, C)` by the leading columns of that
            classifier, which they train; needed where there are several sizes.
    """

    logits: Tensor
    embedding: Tensor
    classify: Callable[[Tensor], Tensor] | None = None

    def leading(self, dim: int) -> SubModelOutput:
        """What it makes of the batch by the first `dim` numbers of its embeddings.

        Raises:
            ValueError: There is no `classify`.
        """
        if self.classify is None:
            raise ValueError('classify must be given where there are several sizes, got None; give the classifier.')
        embedding = self.embedding[:, :dim]
        return SubModelOutput(self.classify(embedding), embedding, self.classify)


@dataclass(frozen=True)
class Reference:
    """The full-width model as smaller ones look up to it. Nothing that is computed with it trains it.

    Attributes:
        embedding: `(B, D)` of the same images.
        classify: From embeddings `(B, D)`, or the first d numbers of them, to logits `(B, C)` by its classifier.
    """

    embedding: Tensor
    classify: Callable[[Tensor], Tensor]

    def first(self, count: int) -> Reference:
        """The reference of the first `count` images."""
        return Reference(self.embedding[:count], self.classify)

    def leading(self, dim: int) -> Reference:
        """The reference by the first `dim` numbers of its embeddings."""
        return Reference(self.embedding[:, :dim], self.classify)


def cosine_distance(embedding: Tensor, other: Tensor) -> Tensor:
    """Mean of 1 - cosine between two models' embeddings `(B, D)` of the same images, in [0, 2]."""
    return (1.0 - F.cosine_similarity(embedding.float(), other.float(), dim=1)).mean()


class Objective(nn.Module):
    """Loss of one sub-model; this one identifies by the shared classifier, as SFSC does.

    Args:
        loss: On logits.
        triplet: On the sub-model's own embeddings; None for the loss on logits alone.
        triplet_weight: Factor of it.

    Attributes:
        uses_embedding: Whether embeddings are needed.
        uses_reference: Whether the sub-models below full width need the reference.
        keeps_full: Whether the full width trains as it serves, its norms by the statistics that it has.
    """

    uses_reference = False
    keeps_full = False

    def __init__(
        self, loss: SubModelLoss, triplet: BatchHardTriplet | None = None, triplet_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.loss = loss
        self.triplet = triplet
        self.triplet_weight = triplet_weight

    @property
    def uses_embedding(self) -> bool:
        """Whether embeddings are needed."""
        return self.uses_reference or self.triplet is not None

    def forward(
        self,
        index: int,
        output: SubModelOutput,
        target: Tensor,
        reference: Reference | None = None,
        kl_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss of one sub-model.

        Args:
            index: Number of its width, ascending.
            output: What it makes of the batch.
            target: Class indices `(B,)` or class probabilities `(B, C)`.
            reference: The full-width model, if the objective uses it and this is not that model itself.
            kl_scale: Annealing factor of the loss's regulariser.

        Returns:
            The loss (), and the uncertainty `(B,)` in [0, 1], detached.
        """
        if reference is None:
            return self.identify(index, output.logits, output.embedding, target, kl_scale)
        return self.follow(index, output, target, reference, kl_scale)

    def follow(
        self, index: int, output: SubModelOutput, target: Tensor, reference: Reference, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes loss and uncertainty, as `forward`, of a sub-model that looks up to the full-width model."""
        logits = self.follower_logits(index, output, reference)
        loss, uncertainty = self.identify(index, logits, output.embedding, target, kl_scale)
        return loss + self.compatible(output.embedding, target, reference, kl_scale), uncertainty

    def follower_logits(self, index: int, output: SubModelOutput, reference: Reference) -> Tensor:
        """Logits `(B, C)` by which a sub-model with a reference is identified: the shared classifier's."""
        del index, reference
        return output.logits

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss () that ties a sub-model's `embedding` to the reference; for objectives that use one."""
        raise NotImplementedError

    def identify(
        self, index: int, logits: Tensor, embedding: Tensor, target: Tensor, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss on logits, with the triplet loss if there is one."""
        del index
        loss, uncertainty = self.loss.with_uncertainty(logits, target, kl_scale)
        if self.triplet is not None:
            loss = loss + self.triplet_weight * self.triplet(embedding, target)
        return loss, uncertainty
