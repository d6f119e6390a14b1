"""The slimmable engine: any module reads its tensors and its plain attributes at the active width.

A slimmed module keeps its class, its forward code and its state_dict keys. Only what it *reads* changes:

* every tensor that depends on the width (`weight`, `running_mean`, `gamma`, ...) becomes a property of a subclass made
  on the fly (as `torch.nn.utils.parametrize` does) that returns the tensor *at the active width*, while `_parameters`
  and `_buffers` go on holding the stored one, so optimizers, EMA, DDP and checkpoints see each weight once;
* every plain attribute that depends on the width (`groups`, `normalized_shape`, `num_heads`, ...) is set on a switch.

In training the property returns an autograd view. In evaluation it returns a contiguous copy made on first use, because
convolutions copy a strided weight in every forward: a narrow width then costs what a dense model of its shapes costs.
The copy is checked against its source's version counters (`_watched.py`) on each read, and dropped by a switch, by
`train()`/`eval()` and by whatever replaces tensors (`.to()`, deep copies, `load_state_dict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn

from ._cuts import Cut, PrivateCut
from ._watched import stamp, watch

__all__ = ['SlimState', 'attach', 'densify', 'slim_state', 'slim_states']

# Plain attributes that differ between widths, e.g. {'in_channels': 16, 'out_channels': 16, 'groups': 16}.
Attributes = dict[str, Any]


class _Copy(NamedTuple):
    source: Tensor
    stamp: tuple[int, int, int, int]
    tensor: Tensor


class SlimState:
    """What one slimmed module knows about its widths.

    Attributes:
        widths: All widths of the model, ascending, ending in 1.0.
        cuts: Geometry of each of the module's tensors that depends on the width.
        attributes: Plain attributes to set on the module at each width.
        index: Number of the active width.
        leaves: Tensors that stand in for slices, see `sfsc_timm.layers.sliced_leaves`.
    """

    def __init__(self, widths: tuple[float, ...], cuts: dict[str, Cut], attributes: tuple[Attributes, ...]) -> None:
        self.widths = widths
        self.cuts = cuts
        self.attributes = attributes
        self.index = len(widths) - 1
        self.leaves: dict[str, Tensor] = {}
        self._copies: dict[str, _Copy] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> SlimState:
        """Same geometry and width; copies and leaves stay behind, they belong to the original's tensors."""
        new = SlimState(self.widths, self.cuts, self.attributes)
        new.index = self.index
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'leaves': {}, '_copies': {}}

    def switch(self, module: nn.Module, index: int) -> None:
        """Makes width number `index` the active one of `module`, the owner of this state."""
        if index != self.index:
            self.forget()
            self.index = index
            module.__dict__.update(self.attributes[index])

    def forget(self) -> None:
        """Drops the evaluation copies; the next forward makes them afresh."""
        for copy in self._copies.values():
            watch(copy.source, False)
        self._copies.clear()

    def read(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width."""
        if self.leaves and name in self.leaves:
            return self.leaves[name]
        if torch.compiler.is_compiling():  # the slice is part of the graph: nothing to keep, nothing to go stale
            return self.cut(module, name)
        copy = self._copies.get(name)
        if copy is not None and not (torch.is_grad_enabled() and copy.source.requires_grad):
            source = module._parameters[name] if name in module._parameters else module._buffers[name]
            if source is copy.source and stamp(copy.source) == copy.stamp:
                return copy.tensor
        return self._read_afresh(module, name)

    def cut(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width as a view of the stored one, whatever the mode."""
        source = _stored(module, name)
        if source is None or self.cuts[name].is_whole(self.index):
            return source
        return self.cuts[name].view(source, self.index)

    def _read_afresh(self, module: nn.Module, name: str) -> Tensor | None:
        source = _stored(module, name)
        cut = self.cuts[name]
        if source is None or cut.is_whole(self.index):
            return source
        if not isinstance(source, Tensor):  # FX is tracing: the slice becomes part of its graph
            return cut.view(source, self.index)
        if module.training or source.is_inference() or (torch.is_grad_enabled() and source.requires_grad):
            return cut.view(source, self.index)
        # A copy made under inference_mode could not be used later where autograd records.
        with torch.inference_mode(False), torch.no_grad():
            tensor = cut.view(source, self.index)
            if not isinstance(cut, PrivateCut):  # a segment is contiguous: the view itself is as fast, and never stale
                tensor = tensor.clone(memory_format=torch.preserve_format)
                watch(source, True)
        self._copies[name] = _Copy(source, stamp(source), tensor)
        return tensor


def _stored(module: nn.Module, name: str) -> Any:
    """The stored tensor, by the road that FX watches (in tracing it gives a proxy)."""
    return nn.Module.__getattr__(module, name)


class Slimmed:
    """Base of the subclasses made on the fly; tells slimmed modules from others and keeps copies honest."""

    _slim: SlimState
    _dense_class: type[nn.Module]

    def train(self, mode: bool = True) -> Any:
        """As in torch; also drops the evaluation copies."""
        self._slim.forget()
        return super().train(mode)  # type: ignore[misc]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._slim.forget()
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._slim.forget()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def __prepare_scriptable__(self) -> nn.Module:
        """TorchScript compiles the active width (it puts the dense module in the place of this one)."""
        return densify(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles and deep copies by the base class, since the subclass has no importable name."""
        return _new_slimmed, (self._dense_class, tuple(self._slim.cuts)), super().__reduce_ex__(protocol)[2]


@cache
def _slimmed_class(base: Any, names: tuple[str, ...]) -> Any:
    """Subclass of `base` whose tensors `names` are read at the active width."""

    def reader(name: str) -> property:
        return property(lambda module: module._slim.read(module, name), doc=f'`{name}` at the active width.')

    # __module__ stays the base's: FX decides by it what is a leaf.
    namespace: dict[str, Any] = {name: reader(name) for name in names}
    namespace.update(__module__=base.__module__, __doc__=base.__doc__, _dense_class=base)
    return type(base.__name__, (Slimmed, base), namespace)


def _new_slimmed(base: Any, names: tuple[str, ...]) -> Any:
    cls = _slimmed_class(base, names)
    return cls.__new__(cls)


def attach(module: Any, state: SlimState, *, traced: bool = True) -> None:
    """Slims `module` in place: stores its tensors for all widths and makes it read them at the active one.

    Args:
        module: Module at full width, as its constructor made it.
        state: Geometry for it.
        traced: Whether FX may trace into the module; a slimmed norm has to be a leaf for its segment to follow.
    """
    for name, cut in state.cuts.items():
        if (parameter := module._parameters.get(name)) is not None:
            stored = cut.store(parameter.detach())
            if stored.shape != parameter.shape:
                module._parameters[name] = nn.Parameter(stored, parameter.requires_grad)
        elif (buffer := module._buffers.get(name)) is not None:
            module._buffers[name] = cut.store(buffer)
    module.__dict__['_slim'] = state
    if state.cuts:
        cls = _slimmed_class(module.__class__, tuple(state.cuts))
        if not traced:
            register_notrace_module(cls)
        module.__class__ = cls


def slim_state(module: nn.Module) -> SlimState | None:
    """The module's own state, or None where nothing depends on the width."""
    return module.__dict__.get('_slim')


def slim_states(module: nn.Module) -> Iterator[tuple[nn.Module, SlimState]]:
    """All slimmed modules in `module`, wrapped (DDP, torch.compile, EMA, features_only) or not."""
    for child in module.modules():
        if (state := slim_state(child)) is not None:
            yield child, state


def densify(module: nn.Module) -> nn.Module:
    """Independent copy of `module` at its active width: plain classes, own storage of the slice's size."""
    memo: dict[int, Any] = {}
    with torch.no_grad():
        for child, state in slim_states(module):
            for name in state.cuts:
                source = child._parameters.get(name, child._buffers.get(name))
                tensor = state.cut(child, name)
                if source is None or tensor is None or id(source) in memo:
                    continue
                tensor = tensor.detach().clone(memory_format=torch.preserve_format)
                is_parameter = name in child._parameters
                memo[id(source)] = nn.Parameter(tensor, source.requires_grad) if is_parameter else tensor
    dense = deepcopy(module, memo)
    for child, _ in list(slim_states(dense)):
        del child.__dict__['_slim']
        if isinstance(child, Slimmed):
            child.__class__ = child._dense_class  # type: ignore[assignment]
    return dense
