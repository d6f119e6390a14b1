"""The compatible losses that SFSC is compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ._base import SubModelLoss
from ._objective import Objective, Reference, SubModelOutput
from ._triplet import BatchHardTriplet


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

    @property
    def uses_embedding(self) -> bool:
        """Always."""
        return True

    def forward(
        self,
        index: int,
        output: SubModelOutput,
        target: Tensor,
        reference: Reference | None = None,
        kl_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss of one sub-model, see `Objective`."""
        if reference is None:
            return self.identify(output.logits, output.embedding, target, kl_scale)
        logits = output.logits if self.own is None else self.own[index](output.embedding)
        loss, uncertainty = self.identify(logits, output.embedding, target, kl_scale)
        return loss + self.weight * self.compatible(output.embedding, target, reference, kl_scale), uncertainty

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss that ties `embedding` to the reference."""
        raise NotImplementedError


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

    def forward(
        self,
        index: int,
        output: SubModelOutput,
        target: Tensor,
        reference: Reference | None = None,
        kl_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss of one sub-model, see `Objective`."""
        if reference is not None and self.alone:
            return self.identify(reference.classify(output.embedding), output.embedding, target, kl_scale)
        return super().forward(index, output, target, reference, kl_scale)

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss of the features under the reference's classifier."""
        return self.loss(reference.classify(embedding), target, kl_scale)


class Asymmetric(_Follower):
    """Asymmetric metric learning (Budnik and Avrithis, CVPR 2021).

    A smaller sub-model's features, as queries, are compared with the full model's, as gallery, by a batch-hard triplet
    loss.

    Args:
        loss: On logits.
        metric: The metric loss; None for the default margin.
        **options: `own`, `weight`, and those of `Objective`.
    """

    def __init__(self, loss: SubModelLoss, metric: BatchHardTriplet | None = None, **options: Any) -> None:
        super().__init__(loss, **options)
        self.metric = metric or BatchHardTriplet()

    def compatible(self, embedding: Tensor, target: Tensor, reference: Reference, kl_scale: float | Tensor) -> Tensor:
        """Computes the loss between the features and the reference's."""
        del kl_scale
        loss: Tensor = self.metric(embedding, target, reference.embedding)
        return loss
