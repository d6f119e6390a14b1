"""Gradients of the sub-models over several micro-batches, at the size of their slices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._private import foreach_add_
from ..slim import SliceLayout


class GradientAccumulator:
    """Sums every width's gradients over micro-batches.

    The first gradients of a width are kept as they come, where they have their memory to themselves, and the later
    ones are added to them. So the memory is that of the slices: 1.875 times the shared parameters for four evenly
    spaced widths, not 4 times. Give views of one flat buffer per width if that is to be all-reduced.

    Args:
        layout: The nested slices.

    Examples:
        >>> from sfsc_timm.gradients import GradientProjection
        >>> from sfsc_timm.slim import SharedCut, SliceLayout
        >>> layout = SliceLayout([SharedCut(((1, 2), (2, 4)))])
        >>> accumulator = GradientAccumulator(layout)
        >>> accumulator.add(0, [torch.ones(1, 2)])
        >>> accumulator.add(1, [torch.ones(2, 4)])
        >>> projection = GradientProjection(layout).project(accumulator.gradients)
    """

    def __init__(self, layout: SliceLayout) -> None:
        self.layout = layout
        self.gradients: list[list[Tensor | None]] = []
        self.clear()

    def clear(self) -> None:
        """Forgets all gradients and lets go of their memory."""
        self.gradients = [[None] * len(self.layout.parameters) for _ in range(self.layout.num_widths)]

    @torch.no_grad()
    def add(self, width: int, gradients: Sequence[Tensor | None]) -> None:
        """Adds one micro-batch's gradients of one width.

        Args:
            width: Index of the width.
            gradients: One gradient per parameter, at slice size; None is a missing one. The accumulator may keep
                these very tensors, so the caller must not change them afterwards.

        Raises:
            ValueError: If there are not as many gradients as parameters.
        """
        kept = self.gradients[width]
        if len(gradients) != len(kept):
            raise ValueError(
                f'gradients must hold one gradient (or None) for each of {len(kept)} parameters, got {len(gradients)}.'
            )
        first: dict[int, Tensor] = {}
        sums, terms = [], []
        for index, (total, gradient) in enumerate(zip(kept, gradients, strict=True)):
            if gradient is None:
                continue
            if total is None:
                first[index] = gradient
            else:
                sums.append(total)
                terms.append(gradient)
        if sums:
            foreach_add_(sums, terms)
        for index, gradient in zip(first, _own(list(first.values())), strict=True):
            kept[index] = gradient

    def numel(self) -> int:
        """Counts the elements of memory that is held: those of the slices that have a gradient."""
        held = [gradient for width in self.gradients for gradient in width if gradient is not None]
        storages = {g.untyped_storage().data_ptr(): g.untyped_storage().nbytes() // g.element_size() for g in held}
        return sum(storages.values())


def _own(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Copies the tensors that share elements with others, or that keep more memory alive than they use.

    Autograd hands out one tensor for two inputs, expanded tensors and views of larger ones. Those that tile a storage
    exactly may stay: tensors of their own, and the views that make up the flat buffer of an all-reduce.
    """
    storages: dict[int, list[Tensor]] = {}
    for gradient in gradients:
        storages.setdefault(gradient.untyped_storage().data_ptr(), []).append(gradient)
    shared = {pointer for pointer, views in storages.items() if not _tile(views)}
    return [g.clone() if g.untyped_storage().data_ptr() in shared else g for g in gradients]


def _tile(views: list[Tensor]) -> bool:
    """Whether views of one storage follow one another without gap or overlap from its start to its end."""
    end = 0
    for view in sorted(views, key=Tensor.storage_offset):
        if view.storage_offset() != end:
            return False
        end += view.numel()
    return end * views[0].element_size() == views[0].untyped_storage().nbytes()
