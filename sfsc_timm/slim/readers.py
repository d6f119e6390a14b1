"""The slimmable engine: any module reads its tensors and its plain attributes at the active width.

A slimmed module keeps its class, its forward code and its state_dict keys. Only what it *reads* changes:

* every tensor that depends on the width (`weight`, `running_mean`, `gamma`, ...) becomes an attribute of a subclass
  made on the fly (as `torch.nn.utils.parametrize` does) that gives the tensor *at the active width*, while
  `_parameters` and `_buffers` go on holding the stored one: optimizers, EMA, DDP and checkpoints see each weight once;
* every plain attribute that depends on the width (`groups`, `normalized_shape`, `num_heads`, ...) is set on a switch.

That tensor is a view. In evaluation the module's own forward gets a contiguous copy instead, made on first use,
because convolutions copy a strided weight in every forward: a narrow width then costs what a dense model of its shapes
costs. Each forward checks the copy against its source's version counters (`_watched.py`); it is dropped by a switch,
by `train()`/`eval()`, by whatever replaces tensors (`.to()`, deep copies, `load_state_dict`), and when somebody else
reads the tensor, who may write to the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, wraps
from operator import attrgetter, is_, itemgetter
from types import MethodType
from typing import Any, NamedTuple

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn

from .geometry import Cut, PrivateCut
from .watched import CLOCK, counted, watch

__all__ = ['SlimState', 'attach', 'densify', 'prepared', 'slim_state', 'slim_states']

# Plain attributes that differ between widths, e.g. {'in_channels': 16, 'out_channels': 16, 'groups': 16}.
Attributes = dict[str, Any]


class _Kept(NamedTuple):
    """Tensors that a module's forward uses in evaluation, and how to tell that they still hold.

    Attributes:
        tensors: Copy, view or whole tensor by name.
        clock: The ticks seen.
        sources: Where a stored tensor is to be found: dict of the module, name, the tensor.
        versions: Tensors with the count of writes to them.
        places: Running statistics with the address of their storage: a buffer's `.data` cannot be watched.
        watched: Parameters whose `.data` is watched.
    """

    tensors: dict[str, Tensor | None]
    clock: int
    sources: list[tuple[dict[str, Any], str, Any]]
    versions: list[tuple[Tensor, int]]
    places: list[tuple[Tensor, int]]
    watched: list[Any]

    def holds(self) -> bool:
        """Whether nothing happened to the sources. In the path of every forward: plain loops, no calls."""
        if self.clock != CLOCK[0]:
            return False
        for holder, name, source in self.sources:
            if holder.get(name) is not source:
                return False
        for tensor, version in self.versions:
            if tensor._version != version:
                return False
        for tensor, place in self.places:  # noqa: SIM110
            if tensor.data_ptr() != place:
                return False
        return True


class SlimState:
    """What one slimmed module knows about its widths.

    Attributes:
        widths: All widths of the model, ascending, ending in 1.0.
        cuts: Geometry of each of the module's tensors that depends on the width.
        attributes: Plain attributes to set on the module at each width.
        index: Number of the active width.
        leaves: Tensors that stand in for slices, see `sfsc_timm.slim.sliced_leaves`.
        is_running: Of the model's root: whether `prepared` has its tensors in place.
        forwards_alone: Of the model's root: training forwards since the last switch.
    """

    def __init__(self, widths: tuple[float, ...], cuts: dict[str, Cut], attributes: tuple[Attributes, ...]) -> None:
        self.widths = widths
        self.cuts = cuts
        self.attributes = attributes
        self.index = len(widths) - 1
        self.leaves: dict[str, Tensor] = {}
        self.is_running = False
        self.forwards_alone = 0
        self._kept: _Kept | None = None
        self._whole: _Whole | None = None
        self._root: SlimState | None = None  # whose `_whole` has a part in this

    def __deepcopy__(self, memo: dict[int, Any]) -> SlimState:
        """Same geometry and width; copies and leaves stay behind, they belong to the original's tensors."""
        new = SlimState(self.widths, self.cuts, self.attributes)
        new.index = self.index
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'leaves': {}, 'is_running': False, '_kept': None, '_whole': None, '_root': None}

    def switch(self, module: nn.Module, index: int) -> None:
        """Makes width number `index` the active one of `module`, the owner of this state."""
        if index != self.index:
            self.forget()
            self.index = index
            self.forwards_alone = 0
            module.__dict__.update(self.attributes[index])

    def forget(self) -> None:
        """Drops the evaluation copies; the next forward makes them afresh."""
        if self._kept is not None:
            for source in self._kept.watched:
                watch(source, False)
            self._kept = None
        if self._root is not None:
            self._root._whole = None
            self._root = None

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
        return self.checked(module).tensors

    def checked(self, module: nn.Module) -> _Kept:
        """What a forward in evaluation uses: what is kept, or new copies if something happened to their sources."""
        kept = self._kept
        if kept is None or not kept.holds():
            # Not forgotten first: a parameter that stays keeps the alias by which someone may still write to it.
            self._kept = self._keep(module)
            for source in kept.watched if kept is not None else ():
                if not any(source is new for new in self._kept.watched):
                    watch(source, False)
            kept = self._kept
        return kept

    def cut(self, module: nn.Module, name: str) -> Tensor | None:
        """Tensor `name` of `module` at the active width as a view of the stored one, whatever the mode."""
        source = _stored(module, name)
        if source is None or self.cuts[name].is_whole(self.index):
            return source
        return self.cuts[name].view(source, self.index)

    def _keep(self, module: nn.Module) -> _Kept:
        kept = _Kept({}, CLOCK[0], [], [], [], [])
        for name, cut in self.cuts.items():
            source = _stored(module, name)
            # A copy made under inference_mode could not be used later where autograd records.
            with torch.inference_mode(False), torch.no_grad():
                tensor: Any = self.cut(module, name)
                if _is_copied(source, cut, self.index):
                    tensor = tensor.clone(memory_format=torch.preserve_format)
                    watch(source, True)
                    kept.versions.extend(counted(source))
                elif isinstance(cut, PrivateCut):  # a segment: writes show, another storage (`.data = `) would not
                    watch(source, True)
            kept.tensors[name] = tensor
            if name in module._parameters:
                kept.watched.append(source)
            elif isinstance(source, Tensor) and source.is_floating_point() and not source.is_meta:
                kept.places.append((source, source.data_ptr()))
            kept.sources.append((module._parameters if name in module._parameters else module._buffers, name, source))
        return kept


def _is_copied(source: Any, cut: Cut, index: int) -> bool:
    """Whether evaluation is faster with a copy, and what happens to its source can be seen."""
    copied = not isinstance(cut, PrivateCut) and not cut.is_whole(index)
    return copied and isinstance(source, Tensor) and not source.is_inference()


def _in_transform() -> bool:
    """Whether tensors are stand-ins, of no use afterwards: those of torch.func, of FakeTensorMode, of jit.trace."""
    functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return functorch or torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


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

    def __setattr__(self, name: str, value: Any) -> None:
        slim: SlimState | None = self.__dict__.get('_slim')
        if slim is not None and name in slim.cuts:
            slim.forget()
        super().__setattr__(name, value)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._slim.forget()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def __prepare_scriptable__(self) -> nn.Module:
        """TorchScript compiles the active width (it puts the dense module in the place of this one)."""
        return densify(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles and deep copies by the base class, since the subclass has no importable name."""
        return _new_slimmed, (self._dense_class, tuple(self._slim.cuts)), super().__reduce_ex__(protocol)[2]


class _Reader:
    """Attribute of a slimmed class that reads a tensor at the active width.

    Not a property, because an attribute that cannot be set gives way to an instance's own: a forward puts its tensors
    there for its length.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        return self if module is None else module._slim.read(module, self.name)


@cache
def _slimmed_class(base: Any, names: tuple[str, ...]) -> Any:
    """Subclass of `base` whose tensors `names` are read at the active width."""

    @wraps(base.forward)
    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # the slices are part of the graph: nothing to keep, nothing to go stale
            return base.forward(module, *args, **kwargs)
        tensors = module._slim.gather(module)
        own = module.__dict__
        own.update(tensors)  # found before the reader, at the speed of any attribute
        try:
            return base.forward(module, *args, **kwargs)
        finally:
            for name in tensors:
                own.pop(name, None)

    # __module__ stays the base's: FX decides by it what is a leaf.
    namespace: dict[str, Any] = {name: _Reader(name) for name in names}
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


class _Whole:
    """Evaluation tensors of all modules of a model, put in place and checked together.

    Each module can do it alone, but between two convolutions nothing of it is in the processor's cache any more, and
    at batch 1 that would cost ten percent. What `_Kept.holds` asks of one module is asked here of all, by C loops.

    Args:
        model: A slimmable model; only its modules that are in evaluation take part.
    """

    def __init__(self, model: nn.Module) -> None:
        members = [(child, state) for child, state in slim_states(model) if state.cuts]
        self._dicts = [child.__dict__ for child, _ in members]
        self._training = [child.training for child, _ in members]
        self._tensors: list[dict[str, Any]] = [{} for _ in members]
        found: list[_Kept] = []
        for (child, state), tensors in zip(members, self._tensors, strict=True):
            if not (state.leaves or child.training):
                kept = state.checked(child)
                # The forward that looks after its own tensors makes way for the plain one.
                tensors.update(kept.tensors, forward=MethodType(_dense_class(child).forward, child))
                state._root = model.__dict__['_slim']
                found.append(kept)
        self._clock = CLOCK[0]
        self._holders = [holder for k in found for holder, _, _ in k.sources]
        self._names = [name for k in found for _, name, _ in k.sources]
        self._sources = [source for k in found for _, _, source in k.sources]
        self._counted = [tensor for k in found for tensor, _ in k.versions]
        self._versions = [version for k in found for _, version in k.versions]
        self._placed = [tensor for k in found for tensor, _ in k.places]
        self._places = [place for k in found for _, place in k.places]

    def holds(self) -> bool:
        """Whether nothing happened to any source or module."""
        return (
            self._clock == CLOCK[0]
            and list(map(_training_of, self._dicts)) == self._training
            and all(map(is_, map(dict.get, self._holders, self._names), self._sources))
            and list(map(_version_of, self._counted)) == self._versions
            and list(map(Tensor.data_ptr, self._placed)) == self._places
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


_version_of = attrgetter('_version')
_training_of = itemgetter('training')


def _dense_class(module: Any) -> Any:
    return module._dense_class


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Has all evaluation copies of a model in place for one forward of it.

    For that long, its modules give the copies to whoever asks: a hook must not write to what it reads there.
    """
    root: SlimState = model.__dict__['_slim']
    if torch.is_grad_enabled() or root.is_running or torch.compiler.is_compiling() or _in_transform():
        yield
        return
    whole = root._whole
    if whole is None or not whole.holds():
        whole = root._whole = _Whole(model)
    root.is_running = True
    try:
        whole.install()
        yield
    finally:
        whole.remove()
        root.is_running = False


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
