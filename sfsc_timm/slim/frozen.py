"""Evaluation at the speed of a dense model: contiguous copies of the active width's slices, in place for a forward.

A convolution copies a strided weight in every forward; at batch 1 that costs a quarter of the time. So the first
evaluation forward of a model at a width makes contiguous copies of its slices, and every forward puts them where its
modules look first, and takes them away again. Everywhere else readers give views.

The copies hold while the width, each module's mode, and identity, version and address of all sources are what they
were: in-place and foreach writes, `load_state_dict`, `.to()`, `.data = ` and replaced tensors are seen. What torch does
not count (`.data.mul_()`, a fused optimizer's step, a collective operation, a write through `.numpy()`) is not seen
*while the model stays in evaluation*; `train()`, `eval()`, a switch of width and `refresh()` drop the copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from .._private import in_transform, version_of
from .geometry import PrivateCut
from .guard import Guard
from .intact import check_shapes
from .readers import slim_states

__all__ = ['Frozen', 'frozen', 'guards']

_index_of = attrgetter('index')
_leaves_of = attrgetter('leaves')
_training_of = itemgetter('training')


class Frozen:
    """What the modules of a model read in an evaluation forward, and how to tell that it still holds.

    All modules are asked at once, by C loops: between two convolutions nothing of it is in the processor's cache, and
    at batch 1 asking each module would cost ten percent.

    Args:
        model: The root; its modules in training take no part.
    """

    def __init__(self, model: nn.Module) -> None:
        self._states = []
        self._dicts: list[dict[str, Any]] = []
        self._tensors: list[dict[str, Tensor | None]] = []
        self._holders: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._sources: list[Any] = []
        self._counted: list[Tensor] = []
        self._placed: list[Tensor] = []
        for child, state in slim_states(model):
            self._states.append(state)
            self._dicts.append(child.__dict__)
            self._tensors.append({})
            if child.training or state.leaves:
                continue
            for name, cut in state.cuts.items():
                holder = child._parameters if name in child._parameters else child._buffers
                if name not in holder:  # a parametrization or pruning took its place, see check_intact
                    continue
                source = holder.get(name)
                self._holders.append(holder)
                self._names.append(name)
                self._sources.append(source)
                # A copy made under inference_mode could not be used later where autograd records.
                with torch.inference_mode(False), torch.no_grad():
                    tensor = state.view(child, name)
                    if source is not None and not source.is_inference():
                        self._placed.append(source)
                        if not (isinstance(cut, PrivateCut) or cut.is_whole(state.index)):
                            tensor = tensor.clone(memory_format=torch.preserve_format)  # type: ignore[union-attr]
                            self._counted.append(source)
                self._tensors[-1][name] = tensor
        self._indices = list(map(_index_of, self._states))
        self._training = list(map(_training_of, self._dicts))
        self._versions = list(map(version_of, self._counted))
        self._addresses = list(map(Tensor.data_ptr, self._placed))
        self._storages = list(map(Tensor.untyped_storage, self._placed))  # alive, so that none takes another's address

    def holds(self) -> bool:
        """Whether nothing happened to any module or source."""
        return (
            list(map(_index_of, self._states)) == self._indices
            and not any(map(_leaves_of, self._states))
            and list(map(_training_of, self._dicts)) == self._training
            and all(map(is_, map(dict.get, self._holders, self._names), self._sources))
            and list(map(version_of, self._counted)) == self._versions
            and list(map(Tensor.data_ptr, self._placed)) == self._addresses
        )

    def install(self) -> None:
        """Puts the tensors where modules find them at the speed of any attribute, before the readers."""
        for own, tensors in zip(self._dicts, self._tensors, strict=True):
            own.update(tensors)

    def remove(self) -> None:
        """Takes them away again: whoever reads a tensor outside of a forward may write to it."""
        for own, tensors in zip(self._dicts, self._tensors, strict=True):
            for name in tensors:
                own.pop(name, None)


def _freeze(model: nn.Module) -> Frozen:
    check_shapes(model)
    return Frozen(model)


@contextmanager
def frozen(model: nn.Module, worth: bool = True) -> Iterator[None]:
    """Has all evaluation copies of a root in place for one forward of it.

    For that long, its modules give the copies to whoever asks: a hook must not write to what it reads there. Where
    gradients are recorded or tensors are stand-ins (torch.func, tracing, export), its modules run on views.

    Args:
        model: The root.
        worth: Whether copies save more than it takes to look after them: not for a head, whose linear layers take
            strided weights as they are. It runs on copies if they are in place, and on views otherwise.
    """
    if torch.compiler.is_compiling():  # the slices are part of the graph: nothing to keep, nothing to go stale
        yield
        return
    on_views = torch.is_grad_enabled() or in_transform()
    freeze = partial(_freeze, model) if worth and not on_views else None
    with model.__dict__['_slim'].guard.running(freeze, records=on_views):
        yield


def guards(module: nn.Module) -> list[Guard]:
    """Those of all roots in `module`, wrapped or not."""
    return [state.guard for _, state in slim_states(module) if state.guard is not None]
