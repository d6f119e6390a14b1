"""Parameters that tell on writes which leave their version counter alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ['CLOCK', 'WatchedParameter', 'counted', 'watch']

_DATA: Any = torch._C.TensorBase.data  # the C descriptor that `data` overrides

CLOCK = [0]
"""Ticks whenever a watched parameter may have been written to, or may be from now on, without being counted."""


class WatchedParameter(nn.Parameter):
    """`nn.Parameter` whose `.data` can be watched.

    An evaluation copy of a slice is only as good as the knowledge that its source did not change. Autograd's version
    counter sees every in-place operation except those on `param.data`, which is another tensor with a counter of its
    own. This class hands out one such tensor, so that its counter counts those writes, too. A parameter takes this
    class only while a copy of it is in use (`watch`), in evaluation; while it trains it is a plain `nn.Parameter`.
    """

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Any:
        """A deep copy of a watched parameter is a plain one."""
        return nn.Parameter(data, requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A pickle of a watched parameter is one of a plain one."""
        return nn.Parameter(self.data, self.requires_grad).__reduce_ex__(protocol)

    @property
    def data(self) -> Tensor:
        """Detached alias, as in torch, whose writes are counted."""
        alias: Tensor | None = self.__dict__.get('_alias')
        if alias is None:
            alias = self.__dict__['_alias'] = _DATA.__get__(self)
        CLOCK[0] += 1  # whoever looks at the counters has one more to look at
        return alias.detach()  # shares the alias' version counter

    @data.setter
    def data(self, value: Tensor) -> None:
        self.__dict__.pop('_alias', None)
        CLOCK[0] += 1
        _DATA.__set__(self, value)


def watch(parameter: Any, on: bool) -> None:
    """Starts or stops watching `parameter.data`; does nothing for tensors that are not parameters."""
    if type(parameter) is (nn.Parameter if on else WatchedParameter):
        parameter.__class__ = WatchedParameter if on else nn.Parameter
        parameter.__dict__.pop('_alias', None)  # it would keep the storage alive that `.to()` replaces


def counted(parameter: Tensor) -> list[tuple[Tensor, int]]:
    """Tensors whose counters count the writes to a watched `parameter`, with what they say now."""
    alias = parameter.__dict__.get('_alias')
    return [(tensor, tensor._version) for tensor in (parameter, alias) if tensor is not None]


def _tick(*_: Any) -> None:
    """The fused optimizers write without counting."""
    if not torch.compiler.is_compiling():  # a compiled step counts its writes, and must not be guarded on this number
        CLOCK[0] += 1


register_optimizer_step_post_hook(_tick)
