"""Losses by name."""

from __future__ import annotations

from typing import Any

from .._registry import Registry
from .base import SubModelLoss
from .cross_entropy import CrossEntropyLoss
from .evidential import EvidentialLoss

_LOSSES: Registry[type[SubModelLoss]] = Registry('loss', argument='name')
_LOSSES.add('cross_entropy', CrossEntropyLoss)
_LOSSES.add('evidential', EvidentialLoss)


def list_losses() -> list[str]:
    """Lists the names that `create_loss` knows."""
    return list(_LOSSES.all())


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
    loss: SubModelLoss = _LOSSES.create(name, **options)
    return loss
