"""Any module reads its tensors and its plain attributes at the active width.

A slimmed module keeps its forward code, its state_dict keys and whatever a user puts on it. Only what it *reads*
changes:

* every tensor that depends on the width (`weight`, `running_mean`, `gamma`, ...) becomes an attribute of a subclass
  made on the fly (as `torch.nn.utils.parametrize` does) that gives the tensor *at the active width*, while
  `_parameters` and `_buffers` go on holding the stored one: optimizers, EMA, DDP and checkpoints see each weight once;
* every plain attribute that depends on the width (`groups`, `normalized_shape`, `num_heads`, ...) is set on a switch.

That tensor is a view, or one of `sliced_leaves`. In an evaluation forward of the whole model, `frozen` puts contiguous
copies in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn

from .geometry import Cut
from .guard import Guard

__all__ = [
    'Attributes',
    'SlimState',
    'Slimmed',
    'attach',
    'densify',
    'read_at_widths',
    'slim_state',
    'slim_states',
    'stored',
]

# Plain attributes that differ between widths, e.g. {'in_channels': 16, 'out_channels': 16, 'groups': 16}.
Attributes = dict[str, Any]


class SlimState:
    """What one slimmed module knows about its widths.

    Attributes:
        widths: All widths of the model, ascending, ending in 1.0.
        cuts: Geometry of each of the module's tensors that depends on the width.
        attributes: Plain attributes to set on the module at each width.
        index: Number of the active width.
        leaves: Tensors that stand in for slices, see `sfsc_timm.slim.sliced_leaves`.
        guard: Of the root of a model: who runs it, and its evaluation copies, see `sfsc_timm.slim.frozen`.
    """

    def __init__(self, widths: tuple[float, ...], cuts: dict[str, Cut], attributes: tuple[Attributes, ...]) -> None:
        self.widths = widths
        self.cuts = cuts
        self.attributes = attributes
        self.index = len(widths) - 1
        self.leaves: dict[str, Tensor] = {}
        self.guard: Guard | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SlimState:
        """Same geometry and width; leaves stay behind, they belong to the original's tensors."""
        new = SlimState(self.widths, self.cuts, self.attributes)
        new.index = self.index
        new.guard = deepcopy(self.guard, memo)
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'leaves': {}}

    def switch(self, module: nn.Module, index: int) -> None:
        """Makes width number `index` the active one of `module`, the owner of this state."""
        if index != self.index:
            self.index = index
            module.__dict__.update(self.attributes[index])

    def read(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width: a leaf, or a view of the stored one."""
        if name in self.leaves:
            return self.leaves[name]
        return self.view(module, name)

    def view(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width as a view of the stored one."""
        source = stored(module, name)
        return source if source is None else self.cuts[name].view(source, self.index)


def stored(module: nn.Module, name: str) -> Any:
    """The stored tensor, by the road that FX watches (in tracing it gives a proxy)."""
    return nn.Module.__getattr__(module, name)


class Slimmed:
    """Base of the subclasses made on the fly; tells slimmed modules from others."""

    _slim: SlimState
    _dense_class: type[nn.Module]

    def __prepare_scriptable__(self) -> nn.Module:
        """TorchScript compiles the active width (it puts the dense module in the place of this one)."""
        return densify(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles and deep copies by the base class, since the subclass has no importable name."""
        return _new_slimmed, (self._dense_class, tuple(self._slim.cuts)), super().__reduce_ex__(protocol)[2]


class _Reader:
    """Attribute of a slimmed class that reads a tensor at the active width.

    Not a property, because an attribute that cannot be set gives way to an instance's own: `frozen` puts its tensors
    there for the length of a forward.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        return self if module is None else module._slim.read(module, self.name)


@cache
def _slimmed_class(base: Any, names: tuple[str, ...]) -> Any:
    """Subclass of `base` whose tensors `names` are read at the active width."""
    # __module__ stays the base's: FX decides by it what is a leaf.
    namespace: dict[str, Any] = {name: _Reader(name) for name in names}
    namespace.update(__module__=base.__module__, __doc__=base.__doc__, _dense_class=base)
    # A model class of ours has its own way to TorchScript, and is asked first.
    bases = (base, Slimmed) if hasattr(base, '__prepare_scriptable__') else (Slimmed, base)
    return type(base.__name__, bases, namespace)


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
            kept = cut.store(parameter.detach())
            if kept.shape != parameter.shape:
                module._parameters[name] = nn.Parameter(kept, parameter.requires_grad)
        elif (buffer := module._buffers.get(name)) is not None:
            module._buffers[name] = cut.store(buffer)
    module.__dict__['_slim'] = state
    if state.cuts:
        read_at_widths(module, tuple(state.cuts), traced=traced)


def read_at_widths(module: Any, names: tuple[str, ...], *, traced: bool) -> None:
    """Makes `module` read the tensors `names`, and no others, at the active width; `traced` as for `attach`."""
    cls = _slimmed_class(getattr(module.__class__, '_dense_class', module.__class__), names)
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
    """Independent copy of `module` at its active width: plain classes, tensors of their own of the slice's size."""
    memo: dict[int, Any] = {}
    with torch.no_grad():
        for child, state in slim_states(module):
            for name in state.cuts:
                source = child._parameters.get(name, child._buffers.get(name))
                tensor = state.view(child, name)
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
