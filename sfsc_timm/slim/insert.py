"""One width more for a model that is slimmable already: its weights stay, its norms get a segment for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .geometry import Cut, PrivateCut, SharedCut
from .readers import SlimState, attach, read_at_widths, slim_state
from .twins import NORMS

__all__ = ['insert_width', 'leading_of']


def insert_width(module: nn.Module, like: nn.Module, index: int) -> None:
    """Gives a slimmable model a width that it was not made with.

    What widths share stays the same tensors. What every width owns, its norms, becomes a new, larger tensor, in which
    the other widths' segments are as they were, and that of the new one starts as the leading slice of the next wider
    one's.

    Args:
        module: The slimmable model. Its active width stays.
        like: The same architecture made with that width besides, usually on the meta device; it is only looked at.
        index: Number of the new width in `like`, below the last.

    Raises:
        ValueError: If `like` differs in more than that width; the model is then as it was.
    """
    pairs = list(_pairs(module, like))
    for name, child, state in pairs:
        _check(name, child, state, index)
    active = next(own.index for _, child, _ in pairs if (own := slim_state(child)) is not None)
    for _, child, state in pairs:
        _insert(child, state, index, active)


def leading_of(cut: Cut, tensor: Tensor, index: int, wider: int) -> Tensor:
    """View of width number `index` in what a wider one, number `wider`, reads of a tensor that they share or not.

    Args:
        cut: Geometry of the stored tensor.
        tensor: What the wider width reads.
        index: The width.
        wider: The wider width.
    """
    parts = cut.parts if isinstance(cut, SharedCut) else ()
    return SharedCut((cut.shapes[index], cut.shapes[wider]), parts).view(tensor, 0)


def _pairs(module: nn.Module, like: nn.Module) -> Iterator[tuple[str, nn.Module, SlimState]]:
    """Modules with their state at the widths of `like`."""
    found = dict(module.named_modules())
    others = dict(like.named_modules())
    for name, child in found.items():
        if slim_state(child) is not None and (name not in others or slim_state(others[name]) is None):
            raise ValueError(
                f'the model must have the parts that it was made with, got a {type(child).__name__} at {name!r} that '
                'depends on the width and was not there; make the model with all its widths'
            )
    for name, other in others.items():
        state = slim_state(other)
        if state is None:
            continue
        if name not in found:
            raise ValueError(
                f'the model must have all parts that it was made with, got none at {name!r} (pruned away, say); add '
                'the width before, or make the model with all its widths'
            )
        yield name, found[name], state


def _check(name: str, child: nn.Module, state: SlimState, index: int) -> None:
    own = slim_state(child)
    for tensor, cut in state.cuts.items():
        source = _stored(child, tensor)
        known = own.cuts.get(tensor) if own is not None else None
        if source is None and known is None:
            continue
        before = cut.shapes[:index] + cut.shapes[index + 1 :]
        expected = known.shapes if known is not None else (tuple(source.shape),) * len(before)
        if before != expected:
            raise ValueError(
                f'{name}.{tensor} must have the sizes that the model was made with, {before}, got {expected}; make the '
                'model with all its widths'
            )


def _insert(child: nn.Module, state: SlimState, index: int, active: int) -> None:
    own = slim_state(child)
    active += active >= index
    if own is None:  # its tensors were the same at every width
        own = SlimState(state.widths, state.cuts, state.attributes)
        own.index = active
        attach(child, own, traced=not isinstance(child, NORMS))
        return
    for tensor, cut in state.cuts.items():
        if isinstance(cut, PrivateCut) and (source := _stored(child, tensor)) is not None:
            larger = _with_segment(cut, source.detach(), index)
            if isinstance(source, nn.Parameter):
                child._parameters[tensor] = nn.Parameter(larger, source.requires_grad)
            else:
                child._buffers[tensor] = larger
    names = tuple(own.cuts)
    own.widths, own.cuts, own.attributes, own.index = state.widths, state.cuts, state.attributes, active
    if tuple(own.cuts) != names:
        read_at_widths(child, tuple(own.cuts), traced=not isinstance(child, NORMS))


@torch.no_grad()
def _with_segment(cut: PrivateCut, source: Tensor, index: int) -> Tensor:
    """The stored tensor with a segment for width number `index` before that of the next wider one."""
    start, length = cut.offsets[index], cut.offsets[index + 2] - cut.offsets[index + 1]
    wider = source.narrow(0, start, length).view(cut.shapes[index + 1])
    new = leading_of(cut, wider, index, index + 1).reshape(-1)
    return torch.cat([source[:start], new, source[start:]])


def _stored(child: nn.Module, name: str) -> Any:
    return child._parameters.get(name, child._buffers.get(name))
