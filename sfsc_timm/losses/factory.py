"""Losses by name."""

from collections.abc import Callable
from typing import Any

from .base import SubModelLoss
from .cross_entropy import CrossEntropyLoss
from .evidential import EvidentialLoss

_LOSSES: dict[str, Callable[..., SubModelLoss]] = {'evidential': EvidentialLoss, 'cross_entropy': CrossEntropyLoss}


def list_losses() -> list[str]:
    """Lists the names that `create_loss` knows."""
    return sorted(_LOSSES)


def create_loss(name: str, **options: Any) -> SubModelLoss:
    """Creates a sub-model loss.

    Args:
        name: 'evidential' or 'cross_entropy'.
        **options: The loss's own arguments, such as `evidence` or `label_smoothing`.

    Returns:
        The loss module.

    Raises:
        ValueError: If the name is unknown, or an option is unknown or out of its range.
    """
    if name not in _LOSSES:
        raise ValueError(f'Parameter `name` must be one of {list_losses()}. Found {name!r}.')
    try:
        return _LOSSES[name](**options)
    except TypeError as error:
        raise ValueError(f'Loss {name!r} does not take these options: {options}. ({error})') from error
