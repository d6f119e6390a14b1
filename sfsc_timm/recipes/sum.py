"""Neither of SFSC's ideas."""

from __future__ import annotations

from dataclasses import dataclass

from ._registry import register_recipe
from .sfsc import SFSC


@register_recipe
@dataclass(frozen=True)
class Sum(SFSC):
    """Ablation: cross-entropy of all widths on the shared classifier, gradients summed, one batch for all widths."""

    name = 'sum'
    title = 'Sum'

    criterion: str = 'cross_entropy'
    aggregation: str = 'sum'
    own_batches: float = 0.0
