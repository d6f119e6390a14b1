"""Gradients at the size of the slice.

Autograd's backward of a slice writes a gradient of the whole tensor's size, zero outside of the slice: four widths
would need four times the parameters. So a forward can run on leaves instead, one tensor per parameter that holds what
the active width uses, and `torch.autograd.grad(loss, leaves)` gives gradients of just that size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .geometry import Cut, PrivateCut, SharedCut, SliceLayout
from .readers import SlimState, slim_state, slim_states

__all__ = ['slice_layout', 'sliced_leaves']


@contextmanager
def sliced_leaves(module: nn.Module) -> Iterator[list[Tensor]]:
    """Runs the forwards in the block on leaf tensors of the active width.

    A slice is copied once, contiguous, instead of by every convolution that uses it, forward and backward. It is a
    snapshot: parameters written in the block are not seen.

    Yields:
        One tensor per parameter of `module`, in the order of `module.parameters()`: a leaf of the slice's shape, or the
        parameter itself where the active width uses all of it.
    """
    leaves: list[Tensor] = []
    try:
        for child in module.modules():
            state = slim_state(child)
            found: dict[str, Tensor] = {}
            for name, parameter, cut in _parameters(child, state):
                if state is None or cut is None or cut.is_whole(state.index):
                    leaves.append(parameter)
                    continue
                with torch.no_grad():
                    leaf = cut.view(parameter, state.index)
                    if not isinstance(cut, PrivateCut):
                        leaf = leaf.clone(memory_format=torch.preserve_format)
                found[name] = leaf.detach().requires_grad_(parameter.requires_grad)
                leaves.append(found[name])
            if state is not None:
                state.leaves = found
        yield leaves
    finally:
        for _, state in slim_states(module):
            state.leaves = {}


def slice_layout(module: nn.Module, extra: Sequence[Tensor] = ()) -> SliceLayout:
    """Layout of all parameters of a slimmable model, in the order of `module.parameters()` and `sliced_leaves`.

    Args:
        module: The slimmable model.
        extra: Parameters beside it that every width uses whole; they come last.

    Raises:
        ValueError: If `module` is not slimmable.
    """
    num_widths = next((len(state.widths) for _, state in slim_states(module)), 0)
    if not num_widths:
        raise ValueError(f'module must be a slimmable model, got a {type(module).__name__} that has no widths')
    cuts = [
        cut or SharedCut((tuple(parameter.shape),) * num_widths)
        for child in module.modules()
        for _, parameter, cut in _parameters(child, slim_state(child))
    ]
    return SliceLayout([*cuts, *(SharedCut((tuple(parameter.shape),) * num_widths) for parameter in extra)])


def _parameters(module: nn.Module, state: SlimState | None) -> Iterator[tuple[str, nn.Parameter, Cut | None]]:
    """A module's own parameters with their cuts; None where all widths use the whole."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter, state.cuts.get(name) if state is not None else None
