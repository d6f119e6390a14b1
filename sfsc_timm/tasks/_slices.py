"""The slices of a slimmable model as the gradient code wants them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from ..gradients import PrivateSegments, SharedSlices, SliceLayout
from ..models import get_widths
from ..slim import PrivateCut, SharedCut, slim_state

__all__ = ['slice_layout']


def slice_layout(model: nn.Module, extra: Sequence[Tensor] = ()) -> SliceLayout:
    """Layout of all parameters of a slimmable model, in the order of `model.parameters()`.

    A dimension that packs several equal parts (qkv) becomes two, so that every slice is a leading one.

    Args:
        model: The slimmable model.
        extra: Parameters beside it that every width uses whole; they come last.

    Raises:
        ValueError: If `model` is not slimmable.
    """
    num_widths = len(get_widths(model))
    layout: list[SharedSlices | PrivateSegments] = []
    for module in model.modules():
        state = slim_state(module)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            cut = state.cuts.get(name) if state is not None else None
            if isinstance(cut, PrivateCut):
                layout.append(PrivateSegments(tuple(prod(shape) for shape in cut.shapes)))
            elif isinstance(cut, SharedCut):
                layout.append(SharedSlices(tuple(_unpacked(shape, cut.parts) for shape in cut.shapes)))
            else:
                layout.append(SharedSlices((tuple(parameter.shape),) * num_widths))
    layout += [SharedSlices((tuple(parameter.shape),) * num_widths) for parameter in extra]
    return SliceLayout(layout)


def _unpacked(shape: tuple[int, ...], parts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        n for size, count in zip(shape, parts, strict=True) for n in ((size,) if count == 1 else (count, size // count))
    )
