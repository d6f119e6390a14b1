"""Asymmetric metric learning inside one switchable network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..losses import Asymmetric, BatchHardTriplet, Objective, SubModelLoss
from ..models import Slimmable
from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class AsymmetricMetricS(Recipe):
    """One switchable network; smaller widths have classifiers of their own and query the full width's gallery.

    Attributes:
        weight: Factor of the metric loss.
        metric_margin: Its margin.
    """

    name = 'asymmetric-s'
    title = 'Asymmetric-S'

    weight: float = 1.0
    metric_margin: float = 0.3

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and the metric loss against the full width."""
        own = self.copies_of_classifier(model)
        metric = BatchHardTriplet(self.metric_margin)
        return Asymmetric(loss, metric, own=own, weight=self.weight, **triplet)
