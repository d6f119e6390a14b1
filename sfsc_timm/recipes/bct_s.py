"""Backward-compatible training inside one switchable network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..losses import BackwardCompatible, Objective, SubModelLoss
from ..models import Slimmable
from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class BCTS(Recipe):
    """One switchable network; smaller widths have classifiers of their own and also learn the full width's view.

    The full width, the reference, is trained at the same time; its classifier learns from it alone.

    Attributes:
        weight: Factor of the loss under the full width's classifier.
        own_classifiers: Whether smaller widths have classifiers of their own; without them only that loss is left.
    """

    name = 'bct-s'
    title = 'BCT-S'

    weight: float = 1.0
    own_classifiers: bool = True

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and that under the full width's classifier."""
        own = self.copies_of_classifier(model) if self.own_classifiers else None
        return BackwardCompatible(loss, own, self.weight, alone=not self.own_classifiers, **triplet)
