"""A parameter that tells on writes which leave its version counter alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ['WatchedParameter', 'stamp', 'watch']

_DATA: Any = torch._C.TensorBase.data  # the C descriptor that `data` overrides


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
        return alias.detach()  # shares the alias' version counter

    @data.setter
    def data(self, value: Tensor) -> None:
        self.__dict__.pop('_alias', None)
        self.__dict__['_replaced'] = self.__dict__.get('_replaced', 0) + 1
        _DATA.__set__(self, value)


def watch(parameter: Tensor, on: bool) -> None:
    """Starts or stops counting the writes through `parameter.data`."""
    if type(parameter) is (nn.Parameter if on else WatchedParameter):
        parameter.__class__ = WatchedParameter if on else nn.Parameter
        for name in ('_alias', '_replaced'):  # the alias would keep the storage alive that `.to()` replaces
            parameter.__dict__.pop(name, None)


_steps = 0  # of all optimizers: the fused ones write without counting


def _count_step(*_: Any) -> None:
    global _steps  # noqa: PLW0603
    if not torch.compiler.is_compiling():  # a compiled step counts its writes, and must not be guarded on this number
        _steps += 1


register_optimizer_step_post_hook(_count_step)


def stamp(tensor: Tensor) -> tuple[int, ...]:
    """Numbers of which at least one changes whenever the values of a watched `tensor` may have changed."""
    alias = tensor.__dict__.get('_alias')
    return (
        tensor._version,
        tensor.data_ptr(),
        0 if alias is None else alias._version,
        tensor.__dict__.get('_replaced', 0),
        _steps,
    )
