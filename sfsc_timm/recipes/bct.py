"""Backward-compatible training, the sizes in the roles of the models' versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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

    weight: float = 1.0

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Own classification loss, and that under the full network's classifier."""
        del model
        return BackwardCompatible(loss, weight=self.weight, **triplet)
