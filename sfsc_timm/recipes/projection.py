"""The second of SFSC's ideas alone."""

from __future__ import annotations

from dataclasses import dataclass

from ._registry import register_recipe
from .sfsc import SFSC


@register_recipe
@dataclass(frozen=True)
class Projection(SFSC):
    """Ablation: cross-entropy, gradients projected."""

    name = 'projection'
    title = 'Projection only'

    criterion: str = 'cross_entropy'
