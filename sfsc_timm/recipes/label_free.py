"""Narrow widths for a network that is finished: they learn its embeddings, of images that nobody labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from .._settings import setting
from ..losses import EmbeddingRegression, Objective, SubModelLoss
from ..models import Slimmable
from ..tasks import SFSCTask
from ._base import Recipe
from ._registry import register_recipe


@register_recipe
@dataclass(frozen=True)
class LabelFree(Recipe):
    """One switchable network out of a finished one: all widths learn its embeddings, of images without labels.

    The weights that are given (--pretrained, --initial-checkpoint) are the fixed teacher, and width 1.0 is held to it.
    Narrower widths begin as its slices, its channels sorted by importance, with norms and necks of their own that are
    fitted to the first images. Where it has no neck yet, as a plain timm model has none, that becomes the principal
    directions of its centred pooled features. `--data images` reads any folder.

    Attributes:
        composed: Cut, turned and pasted images for smaller widths to learn of besides, as a share of the batch. They
            cost these widths' time over again.
    """

    name = 'label-free'
    title = 'Label-free'
    uses_labels: ClassVar[bool] = False
    keeps_start: ClassVar[bool] = True
    model_options: ClassVar[dict[str, Any]] = {'own_necks': True, 'neck_norm': False}

    composed: float = setting(1.0, within='[0, inf)')

    def create_task(self, model: Slimmable, *, reference: nn.Module | None = None, **options: Any) -> SFSCTask:
        """Makes the task of all widths with the finished `reference`.

        Raises:
            ValueError: There is none.
        """
        if reference is None:
            raise ValueError('reference must be a finished model of full width to learn from, got None')
        return super().create_task(model, reference=reference, **options)

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Agreement with the teacher."""
        del model, triplet
        return EmbeddingRegression(loss)

    def task_options(self, updates_per_epoch: int) -> dict[str, Any]:
        """Summed gradients, and the composed images."""
        return {**super().task_options(updates_per_epoch), 'composed': self.composed}
