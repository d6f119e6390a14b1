"""The plain reading of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from ._registry import register_recipe
from .sfsc import SFSC


@register_recipe
@dataclass(frozen=True)
class SFSCPaper(SFSC):
    """SFSC as its slides state it.

    Evidence softplus(logits), the closed-form integral alone, projection per shell, one batch for all widths.
    """

    name = 'sfsc-paper'
    title = 'SFSC (paper)'

    evidence: str = 'softplus'
    own_batches: float = 0.0
