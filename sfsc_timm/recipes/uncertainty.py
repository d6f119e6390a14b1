"""The first of SFSC's ideas alone."""

from __future__ import annotations

from dataclasses import dataclass

from ._registry import register_recipe
from .sfsc import SFSC


@register_recipe
@dataclass(frozen=True)
class Uncertainty(SFSC):
    """Ablation: the evidential loss, gradients summed."""

    name = 'uncertainty'
    title = 'Uncertainty only'

    aggregation: str = 'sum'
