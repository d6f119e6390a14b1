"""Building a family's model narrow, with a message where that cannot be: for its author, or for who has timm alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ['build_narrow', 'plain_if_whole']

# What a name of timm's fixes, and ours gives to timm's builder.
_FIXED_BY_NAME = ('channel_multiplier', 'depth_multiplier', 'timm_name')


def build_narrow(family: Any, width: float, **kwargs: Any) -> nn.Module:
    """What a family's `dense` gives at a width below 1.0.

    Args:
        family: The class, a `Slimmable`.
        width: Which width.
        **kwargs: Further arguments of `dense`.

    Raises:
        ValueError: A layer cannot be made so narrow; the message names it, the width and the family.
    """
    try:
        return family.dense(width, **kwargs)
    # How torch's and timm's layers refuse numbers of channels that are 0, or that heads or groups do not divide.
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        layer = _layer_in_the_making(error)
        got = f'{type(error).__name__}: {error}' if str(error) else type(error).__name__
        raise ValueError(
            f'{family.__name__}.dense must build the model at width {width:g}, got {got}{layer}; choose a larger '
            'width, or let the family round its channels, heads or groups so that they go together (scale_channels '
            'does to multiples of 8)'
        ) from error


def _layer_in_the_making(error: BaseException) -> str:
    """Words on the module whose constructor failed, by the innermost one in the traceback."""
    found, step = '', error.__traceback__
    while step is not None:
        maker = step.tb_frame.f_locals.get('self')
        if isinstance(maker, nn.Module):
            found = f' in the constructor of a {type(maker).__name__}'
        step = step.tb_next
    return found


def plain_if_whole(what: str, width: float, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of plain timm for a family whose channel multiplier timm fixes by the model's name.

    Args:
        what: The family, for the message.
        width: The sub-model's.
        kwargs: Arguments of the full model.

    Raises:
        ValueError: At any width but 1.0.
    """
    if width != 1.0:
        raise ValueError(
            f'plain timm cannot express {what} at width {width}: its channel multiplier is part of the '
            'name; export the width as ONNX (sfsc-timm export), or load it where sfsc_timm is imported, as '
            'extract(plain=False) makes it'
        )
    return {name: value for name, value in kwargs.items() if name not in _FIXED_BY_NAME}
