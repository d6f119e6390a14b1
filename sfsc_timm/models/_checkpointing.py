"""Gradient checkpointing that remembers the width.

A checkpointed block runs again in backward, when the model may long be at another width. So the block notes the widths,
slices and attributes of its forward, and the recomputation runs under them. It counts no batch a second time into
running statistics (as plain checkpointing does, pytorch#96136).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .._private import BatchNormBase, is_default_reduce
from ..slim import slim_states
from ..slim.readers import Attributes

__all__ = ['checkpointed']

Snapshot = list[tuple[int, dict[str, Tensor], Attributes]]


def checkpointed(block: nn.Module, enable: bool) -> None:
    """Makes `block` recompute its activations in backward, or stops it."""
    base = type(block).__mro__[1] if '_recomputes' in type(block).__dict__ else type(block)
    block.__class__ = _checkpointed_class(base) if enable else base


@cache
def _checkpointed_class(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return base.forward(self, *args, **kwargs)
        if torch.compiler.is_compiling():  # recomputed within its own graph, where the width cannot change
            return checkpoint(base.forward, self, *args, use_reentrant=False, **kwargs)
        snapshot = _take(self)
        contexts = lambda: (nullcontext(), _restored(self, snapshot))  # noqa: E731
        return checkpoint(base.forward, self, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:  # noqa: N807
        """Copies and pickles are made without checkpointing: this class has no importable name."""
        reduced: Any = base.__reduce_ex__(self, protocol)
        new, args, *rest = reduced
        if is_default_reduce(new):
            new, args = _new, (base,)
        return (new, args, *rest)

    namespace = {
        '__module__': base.__module__,
        '__doc__': base.__doc__,
        '__reduce_ex__': __reduce_ex__,
        '_recomputes': True,
        'forward': forward,
    }
    return type(base.__name__, (base,), namespace)


def _new(base: type[nn.Module]) -> nn.Module:
    return base.__new__(base)


def _take(module: nn.Module) -> Snapshot:
    return [
        (state.index, state.leaves, {name: child.__dict__[name] for name in state.attributes[state.index]})
        for child, state in slim_states(module)
    ]


def _put(module: nn.Module, snapshot: Snapshot) -> None:
    for (child, state), (index, leaves, attributes) in zip(slim_states(module), snapshot, strict=True):
        state.index, state.leaves = index, leaves
        child.__dict__.update(attributes)  # those of a width that the model does not have, perhaps


@contextmanager
def _restored(module: nn.Module, snapshot: Snapshot) -> Iterator[None]:
    now = _take(module)
    _put(module, snapshot)
    # A batch is counted once: with a momentum of 0 the running statistics stay, and the counter is put back.
    counting: list[Any] = [m for m in module.modules() if isinstance(m, BatchNormBase) and m.training]
    counting = [norm for norm in counting if norm.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in counting]
    for norm in counting:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(counting, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(counted)
        _put(module, now)
