"""The slimmable engine: any module reads its tensors and its plain attributes at the active width.

A slimmed module keeps its class, its forward code and its state_dict keys. Only what it *reads* changes:

* every tensor that depends on the width (`weight`, `running_mean`, `gamma`, ...) becomes a property of a subclass made
  on the fly (as `torch.nn.utils.parametrize` does) that returns the tensor *at the active width*, while `_parameters`
  and `_buffers` go on holding the stored one, so optimizers, EMA, DDP and checkpoints see each weight once;
* every plain attribute that depends on the width (`groups`, `normalized_shape`, `num_heads`, ...) is set on a switch.

The property returns a view. In evaluation the module's own forward gets a contiguous copy instead, made on first use,
because convolutions copy a strided weight in every forward: a narrow width then costs what a dense model of its shapes
costs. Each forward checks the copy against its source's version counters (`_watched.py`); it is dropped by a switch,
by `train()`/`eval()`, by whatever replaces tensors (`.to()`, deep copies, `load_state_dict`), and when somebody else
reads the tensor, who may write to the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache, wraps
from typing import Any, NamedTuple

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn

from ._cuts import Cut, PrivateCut
from ._watched import stamp, watch

__all__ = ['SlimState', 'attach', 'densify', 'slim_state', 'slim_states']

# Plain attributes that differ between widths, e.g. {'in_channels': 16, 'out_channels': 16, 'groups': 16}.
Attributes = dict[str, Any]


class _Kept(NamedTuple):
    """Tensors that a module's forward uses in evaluation, and how to tell that they still hold."""

    tensors: dict[str, Tensor | None]
    checks: list[tuple[dict[str, Any], str, Any, Callable[[Any], Any], Any]]  # holder, name, source, stamp, value


class SlimState:
    """What one slimmed module knows about its widths.

    Attributes:
        widths: All widths of the model, ascending, ending in 1.0.
        cuts: Geometry of each of the module's tensors that depends on the width.
        attributes: Plain attributes to set on the module at each width.
        index: Number of the active width.
        leaves: Tensors that stand in for slices, see `sfsc_timm.layers.sliced_leaves`.
        running: What the module's forward reads while it is at work, else None.
    """

    def __init__(self, widths: tuple[float, ...], cuts: dict[str, Cut], attributes: tuple[Attributes, ...]) -> None:
        self.widths = widths
        self.cuts = cuts
        self.attributes = attributes
        self.index = len(widths) - 1
        self.leaves: dict[str, Tensor] = {}
        self.running: dict[str, Tensor | None] | None = None
        self._kept: _Kept | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SlimState:
        """Same geometry and width; copies and leaves stay behind, they belong to the original's tensors."""
        new = SlimState(self.widths, self.cuts, self.attributes)
        new.index = self.index
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'leaves': {}, 'running': None, '_kept': None}

    def switch(self, module: nn.Module, index: int) -> None:
        """Makes width number `index` the active one of `module`, the owner of this state."""
        if index != self.index:
            self.forget()
            self.index = index
            module.__dict__.update(self.attributes[index])

    def forget(self) -> None:
        """Drops the evaluation copies; the next forward makes them afresh."""
        if self._kept is not None:
            for _, _, source, _, _ in self._kept.checks:
                watch(source, False)
            self._kept = None

    def read(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width, for whoever reads it outside of the module's forward."""
        if self.leaves and name in self.leaves:
            return self.leaves[name]
        if not torch.compiler.is_compiling():
            self.forget()  # no one can tell what is written through a view
        return self.cut(module, name)

    def gather(self, module: nn.Module) -> dict[str, Tensor | None]:
        """Tensors of `module` at the active width for one forward of it."""
        if self.leaves or module.training or torch.is_grad_enabled() or _in_transform():
            return {name: self.leaves[name] if name in self.leaves else self.cut(module, name) for name in self.cuts}
        if self._kept is None or not _holds(self._kept):
            self.forget()
            self._kept = self._keep(module)
        return self._kept.tensors

    def cut(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width as a view of the stored one, whatever the mode."""
        source = _stored(module, name)
        if source is None or self.cuts[name].is_whole(self.index):
            return source
        return self.cuts[name].view(source, self.index)

    def _keep(self, module: nn.Module) -> _Kept:
        kept = _Kept({}, [])
        for name, cut in self.cuts.items():
            source = _stored(module, name)
            # A copy made under inference_mode could not be used later where autograd records.
            with torch.inference_mode(False), torch.no_grad():
                tensor: Any = self.cut(module, name)
                if _is_copied(source, cut, self.index):
                    tensor = tensor.clone(memory_format=torch.preserve_format)
                    watch(source, True)
                    how: Callable[[Any], Any] = stamp
                else:  # the tensor itself or a segment of it, never stale while the storage is the same
                    how = _place
            kept.tensors[name] = tensor
            holder = module._parameters if name in module._parameters else module._buffers
            kept.checks.append((holder, name, source, how, how(source)))
        return kept


def _holds(kept: _Kept) -> bool:
    return all(holder.get(name) is source and how(source) == value for holder, name, source, how, value in kept.checks)


def _is_copied(source: Any, cut: Cut, index: int) -> bool:
    """Whether evaluation is faster with a copy, and what happens to its source can be seen."""
    copied = not isinstance(cut, PrivateCut) and not cut.is_whole(index)
    return copied and isinstance(source, Tensor) and not source.is_inference()


def _in_transform() -> bool:
    """Whether tensors are stand-ins, of no use afterwards: those of torch.func, of FakeTensorMode, of jit.trace."""
    functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return functorch or torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


def _place(source: Any) -> Any:
    """What a view depends on: the storage."""
    return source.data_ptr() if isinstance(source, Tensor) and not source.is_meta else None


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
        def read(module: Any) -> Tensor | None:
            running = module._slim.running
            return module._slim.read(module, name) if running is None else running[name]

        return property(read, doc=f'`{name}` at the active width.')

    @wraps(base.forward)
    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # the slices are part of the graph: nothing to keep, nothing to go stale
            return base.forward(module, *args, **kwargs)
        module._slim.running = module._slim.gather(module)
        try:
            return base.forward(module, *args, **kwargs)
        finally:
            module._slim.running = None

    # __module__ stays the base's: FX decides by it what is a leaf.
    namespace: dict[str, Any] = {name: reader(name) for name in names}
    namespace.update(__module__=base.__module__, __doc__=base.__doc__, _dense_class=base, forward=forward)
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
