"""No compatibility at all: what each width can do by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class Unified(Recipe):
    """Each width a network of its own with its own classifier; only the diagonal of the matrix means anything."""

    name = 'unified'
    title = 'Unified Model'
    separate: ClassVar[bool] = True
    is_compatible: ClassVar[bool] = False
