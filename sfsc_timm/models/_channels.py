"""Which tensors of a network have to be permuted together so that the order of its channels changes and nothing else.

One forward is watched at the level of torch's functions, where a convolution names its weights. Each value on its way
belongs to a *group* of channels: a convolution reads one group and begins another, a depthwise convolution and a norm
stay in theirs, and what is added or multiplied channel by channel is one group, as all the outputs of a residual stream
and a transformer's tokens are. That is all a network of any family has to tell, but for its attention, whose heads are
groups of channels that keep together; what it does otherwise (grouped convolutions, concatenation of
channels) fixes the order of the groups it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ['ChannelGroup', 'trace_channels']


@dataclass(eq=False)
class ChannelGroup:
    """Channels that have one order.

    Attributes:
        size: How many there are.
        places: Every tensor that lists them, by name, and along which of its dimensions.
        readers: Weights (along dimension 1) that read them, with the mean square of what each reads, shape (size,), as
            a sum over the batches watched; under the name '' the output of the network.
        is_fixed: Whether something depends on their order.
        block: How many consecutive channels keep together, in their order: the size of a head, else 1.
    """

    size: int
    places: set[tuple[str, int]] = field(default_factory=set)
    readers: dict[str, Tensor] = field(default_factory=dict)
    is_fixed: bool = False
    block: int = 1
    _joined: ChannelGroup | None = None

    def root(self) -> ChannelGroup:
        """The group that this one has become part of."""
        group = self
        while group._joined is not None:
            group = group._joined
        return group

    def join(self, other: ChannelGroup) -> None:
        """Makes two groups one."""
        mine, its = self.root(), other.root()
        if mine is not its:
            mine.places |= its.places
            mine.readers.update(its.readers)
            mine.is_fixed |= its.is_fixed
            its._joined = mine

    def read(self, name: str, values: Tensor, dim: int) -> None:
        """Notes that the weight `name` reads the channels, and what they hold: `dim` of `values` lists them."""
        group = self.root()
        mean = values.detach().double().square().mean([d for d in range(values.ndim) if d != dim % values.ndim])
        group.readers[name] = group.readers[name] + mean if name in group.readers else mean


_ATTENTION = ('qkv', 'q', 'kv', 'q_proj', 'k_proj', 'v_proj', 'gate')  # layers whose outputs are listed by heads
_CONVOLUTIONS = {'conv1d', 'conv2d', 'conv3d'}
_SYMMETRIC = {'mean', 'sum', 'amax', 'amin', 'std', 'var', 'norm', 'vector_norm'}  # do not ask for the order
_MIXING = {'matmul', 'bmm', '__matmul__', 'einsum', 'scaled_dot_product_attention', 'group_norm', 'cumsum'}


class _Watch(TorchFunctionMode):
    """Follows the channels of one forward after another."""

    def __init__(self, names: Mapping[int, tuple[str, Tensor]]) -> None:
        super().__init__()
        self._names = names
        self._groups: dict[str, ChannelGroup] = {}  # of vectors, and of what weights put out

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, '__name__', '')
        if name in _CONVOLUTIONS or name == 'linear':
            names = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
            self._follow_weights(name, {**dict(zip(names, args, strict=False)), **(kwargs or {})}, result)
        else:
            results = list(_tensors([result]))
            if results:
                self._follow(name, list(_tensors([args, kwargs or {}])), results)
        return result

    def groups(self) -> list[ChannelGroup]:
        """All groups, in the order of the forward."""
        return list(dict.fromkeys(group.root() for group in self._groups.values()))

    def group_of(self, tensor: Tensor) -> ChannelGroup | None:
        """The group whose channels `tensor` lists, if it is known."""
        found: ChannelGroup | None = getattr(tensor, '_channels', None)
        if found is None and id(tensor) in self._names and tensor.ndim == 1:
            found = self._group_at(self._names[id(tensor)][0], 0, len(tensor))
        return None if found is None else found.root()

    def _group_at(self, name: str, dim: int, size: int) -> ChannelGroup:
        group = self._groups.setdefault(name, ChannelGroup(size)).root()
        group.places.add((name, dim))
        return group

    def _follow_weights(self, function: str, values: Mapping[str, Any], result: Tensor) -> None:
        data, weight, groups = values['input'], values['weight'], values.get('groups', 1)
        dim = -1 if function == 'linear' else 1
        before, (name, _) = self.group_of(data), self._names.get(id(weight), ('', None))
        if name and groups == len(weight) == data.shape[dim] > 1:  # depthwise
            after = before
            if before is not None:
                before.places.add((name, 0))
        else:
            after = self._group_at(name or f'{id(weight)}', 0, result.shape[dim])
            if not name or groups > 1:
                after.is_fixed = True
                _fix([before])
            elif before is not None:
                before.places.add((name, 1))
                before.read(name, data, dim)
            else:
                self.unknown(name, data, dim)
        bias = values.get('bias')
        if after is not None:
            if bias is not None:
                self._join([after, self.group_of(bias)])
            result._channels = after  # type: ignore[attr-defined]

    def _follow(self, function: str, inputs: list[Tensor], results: list[Tensor]) -> None:
        found = [group for tensor in inputs if (group := self.group_of(tensor)) is not None]
        loose = {name for tensor in inputs for name in self._loose_in(tensor)}
        if not found:
            for result in results:
                result._loose = loose  # type: ignore[attr-defined]
            return
        if len(results) > 1 or function in _MIXING:
            _fix(found)
            return
        shape = results[0].shape
        kept = [group for group in found if group.size in shape]
        if function not in _SYMMETRIC:
            _fix([group for group in found if group.size not in shape])
        if len({group.size for group in kept}) > 1:
            _fix(kept)
        elif kept:
            self._join(kept)
            results[0]._channels = kept[0]  # type: ignore[attr-defined]
            self._place_loose(loose, kept[0].root())

    def _loose_in(self, tensor: Tensor) -> set[str]:
        """Parameters of several dimensions (tokens, position embeddings) that `tensor` is, or is made of alone."""
        if id(tensor) in self._names and tensor.ndim > 1:
            return {self._names[id(tensor)][0]}
        found: set[str] = getattr(tensor, '_loose', set())
        return found

    def _place_loose(self, names: Iterable[str], group: ChannelGroup) -> None:
        """Notes parameters that were added to a group, in the one dimension that can be its channels."""
        shapes = {name: tensor.shape for name, tensor in self._names.values()}
        for name in names:
            dims = [dim for dim, size in enumerate(shapes[name]) if size == group.size]
            if len(dims) == 1:
                group.places.add((name, dims[0]))
            else:
                group.is_fixed = True

    def unknown(self, name: str, data: Tensor, dim: int) -> None:
        """Notes that the weight `name` reads channels of which nobody knows where they come from."""
        group = self.reading(name)
        if group is None:
            group = self._groups[f'{name} reads'] = ChannelGroup(data.shape[dim], {(name, 1)}, is_fixed=True)
        group.read(name, data, dim)

    def reading(self, name: str) -> ChannelGroup | None:
        """The group that the weight `name` reads."""
        return next((group for group in self.groups() if (name, 1) in group.places), None)

    def writing(self, name: str) -> ChannelGroup | None:
        """The group that the weight `name` puts out."""
        found = self._groups.get(name)
        return None if found is None else found.root()

    @staticmethod
    def _join(groups: Iterable[ChannelGroup | None]) -> None:
        first, *others = [group for group in groups if group is not None]
        for other in others:
            first.join(other)


def trace_channels(model: nn.Module, batches: Iterable[Tensor], keep_output: bool) -> list[ChannelGroup]:
    """Finds the groups of channels that a network may hold in another order.

    Args:
        model: A network of plain modules, in evaluation.
        batches: Images (B, C, H, W) to run it on; at least one batch.
        keep_output: Whether the order of the output's own channels is fixed, as that of classes is.
    """
    names = {id(tensor): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    watch = _Watch(names)
    for images in batches:
        with torch.no_grad(), watch:
            output: Tensor = model(images)
        group = watch.group_of(output)
        if group is not None:
            group.is_fixed |= keep_output
            group.read('', output, 1)
    for path, module in model.named_modules():
        _join_heads(watch, path, module)
    return [group for group in watch.groups() if not group.is_fixed and group.size > 1]


def _join_heads(watch: _Watch, path: str, module: Any) -> None:
    """Makes the heads of timm's attention layers a group: what makes queries, keys and values, and what reads them."""
    heads: Any = getattr(module, 'num_heads', None)
    group = watch.reading(f'{path}.proj.weight') if isinstance(heads, int) else None
    layers = [name for name in _ATTENTION if isinstance(getattr(module, name, None), nn.Linear)]
    if group is None or not layers or group.size % heads:
        return
    for name in layers:
        _fix([watch.writing(f'{path}.{name}.weight')])  # in itself; it moves with the group
        group.places |= {(f'{path}.{name}.{kind}', 0) for kind, _ in getattr(module, name).named_parameters()}
    group.places |= {(f'{path}.{name}', 0) for name in ('q_bias', 'v_bias') if getattr(module, name, None) is not None}
    group.block, group.is_fixed = group.size // heads, False


def _fix(groups: Iterable[ChannelGroup | None]) -> None:
    for group in groups:
        if group is not None:
            group.root().is_fixed = True


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
