"""An objective at several embedding sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .objective import Objective, Reference, SubModelOutput


class Nested(Objective):
    """Sum of an objective over nested sizes, so that the first numbers of an embedding are one of their own.

    The sizes share the classifier, of which the first d numbers see the leading d columns: the efficient variant,
    MRL-E, of Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022. Every other part of the objective has
    the first d numbers, too: the triplet loss, classifiers of smaller widths' own, and the reference with its
    classifier.

    Args:
        objective: Of one size.
        dims: The sizes, ascending; the last is the whole embedding.
        weight: Factor of the loss of each smaller size; that of the whole embedding counts 1.

    Raises:
        ValueError: The weight is negative.
    """

    def __init__(self, objective: Objective, dims: Sequence[int], weight: float = 1.0) -> None:
        super().__init__(objective.loss, objective.triplet, objective.triplet_weight)
        if not weight >= 0.0:
            raise ValueError(f'weight must be >= 0, got {weight}; 1 is the plain sum over sizes.')
        self.objective = objective
        self.dims = tuple(dims)
        self.weight = weight
        self.uses_reference = objective.uses_reference
        self.keeps_full = objective.keeps_full

    @property
    def uses_embedding(self) -> bool:
        """Whether embeddings are needed: to be cut."""
        return True

    def forward(
        self,
        index: int,
        output: SubModelOutput,
        target: Tensor,
        reference: Reference | None = None,
        kl_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Computes the summed loss (), and the uncertainty `(B,)` of the whole embedding; arguments of `Objective`."""
        loss, uncertainty = self.objective(index, output, target, reference, kl_scale)
        for dim in self.dims[:-1]:
            theirs = None if reference is None else reference.leading(dim)
            own, _ = self.objective(index, output.leading(dim), target, theirs, kl_scale)
            loss = loss + self.weight * own
        return loss, uncertainty

    def extra_repr(self) -> str:
        """Shows the sizes in the module's repr."""
        return f'dims={self.dims}, weight={self.weight}'
