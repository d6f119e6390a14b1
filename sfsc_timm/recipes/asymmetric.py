"""Asymmetric metric learning: networks apart, and one switchable network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .._settings import setting
from ..losses import Asymmetric, BatchHardTriplet, Objective, SubModelLoss
from ..models import Slimmable
from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class AsymmetricMetric(Recipe):
    """A network per width; the full one first, then fixed: the others' queries learn to find in its gallery.

    Budnik and Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.

    Attributes:
        weight: Factor of the metric loss.
        metric_margin: Its margin.
        regression: Factor of plain regression onto the full network's embeddings; 0 for none.
        own_losses: Whether smaller networks classify by themselves, too; without, the metric loss is all, as in that
            paper.
    """

    name = 'asymmetric'
    title = 'Asymmetric'
    separate: ClassVar[bool] = True
    follows: ClassVar[bool] = True

    weight: float = setting(1.0, within='[0, inf)')
    metric_margin: float = setting(0.3, within='[0, inf)')
    regression: float = setting(0.0, within='[0, inf)')
    own_losses: bool = True

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and the metric loss against the full network."""
        del model
        metric = BatchHardTriplet(self.metric_margin)
        options = {'weight': self.weight, 'regression': self.regression, 'alone': not self.own_losses, **triplet}
        return Asymmetric(loss, metric, **options)


@register_recipe
@dataclass(frozen=True)
class AsymmetricMetricS(Recipe):
    """One switchable network; smaller widths have classifiers of their own and query the full width's gallery.

    Attributes:
        weight: Factor of the metric loss.
        metric_margin: Its margin.
        regression: Factor of plain regression onto the full width's embeddings; 0 for none.
        own_losses: Whether smaller widths classify by themselves, too; without, the metric loss is all, as Budnik and
            Avrithis (CVPR 2021) have it.
    """

    name = 'asymmetric-s'
    title = 'Asymmetric-S'

    weight: float = setting(1.0, within='[0, inf)')
    metric_margin: float = setting(0.3, within='[0, inf)')
    regression: float = setting(0.0, within='[0, inf)')
    own_losses: bool = True

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and the metric loss against the full width."""
        own = self.copies_of_classifier(model) if self.own_losses else None
        metric = BatchHardTriplet(self.metric_margin)
        options = {'weight': self.weight, 'regression': self.regression, 'alone': not self.own_losses, **triplet}
        return Asymmetric(loss, metric, own=own, **options)
