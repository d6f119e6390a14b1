"""Building a family's model narrow, with a message for the family's author where that cannot be."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ['build_narrow']


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
