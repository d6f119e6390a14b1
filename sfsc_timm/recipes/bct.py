"""Backward-compatible training, the sizes in the roles of the versions: networks apart, and one switchable network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .._settings import setting
from ..losses import BackwardCompatible, Objective, SubModelLoss
from ..models import Slimmable
from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class BCT(Recipe):
    """A network per width; the full one first, then fixed: the others also learn its classifier's view of them.

    Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020.

    Attributes:
        weight: Factor of the loss under the full network's classifier.
    """

    name = 'bct'
    title = 'BCT'
    separate: ClassVar[bool] = True
    follows: ClassVar[bool] = True

    weight: float = setting(1.0, within='[0, inf)')

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and that under the full network's classifier."""
        del model
        return BackwardCompatible(loss, weight=self.weight, **triplet)


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

    weight: float = setting(1.0, within='[0, inf)')
    own_classifiers: bool = True

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and that under the full width's classifier."""
        own = self.copies_of_classifier(model) if self.own_classifiers else None
        return BackwardCompatible(loss, own, self.weight, alone=not self.own_classifiers, **triplet)
