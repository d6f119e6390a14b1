"""What a recipe says, and what all of them share."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from .._settings import check_settings, setting
from ..losses import BatchHardTriplet, CrossEntropyLoss, Objective, SubModelLoss
from ..models import Slimmable
from ..tasks import SFSCTask

__all__ = ['Recipe']


@dataclass(frozen=True)
class Recipe:
    """How the widths are trained; the fields of a recipe are its options.

    What the recipes share is decided elsewhere, the same for all: model, data, schedule, evaluation, label smoothing
    and the triplet loss.

    Attributes:
        name: As `sfsc-timm train --recipe` knows it.
        title: As tables show it.
        separate: Whether each width is a network of its own, trained after the other, full width first.
        follows: Whether the smaller networks look up to the finished full one (of separate ones only).
        is_compatible: Whether different widths are meant to be compared.
        uses_labels: Whether images have to be labelled.
        keeps_start: Whether the weights that training starts from are the fixed reference.
        model_options: Arguments that a model has to have been created with.
        size_weight: Factor of the loss of each smaller embedding size, for a model with `embed_dims`; 1 for the plain
            sum over sizes, 0 for the largest alone.
        random_widths: How many networks between the widths each step trains besides, drawn anew, for a model that will
            be given widths later (`model.add_width`); 0 for none. Where networks are separate there is nothing between.

    Raises:
        ValueError: An option is of another type than its own, or out of its range.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    separate: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    is_compatible: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    keeps_start: ClassVar[bool] = False
    model_options: ClassVar[dict[str, Any]] = {}

    size_weight: float = setting(1.0, within='[0, inf)')
    random_widths: int = setting(0, within='[0, inf)')

    def __post_init__(self) -> None:
        check_settings(self)
        if self.separate and self.random_widths:
            raise ValueError(
                f'random_widths must be left out of {self.name!r}, got {self.random_widths}: each width is a network '
                'of its own, with none between'
            )

    @property
    def begins_alone(self) -> bool:
        """Whether the full width is trained alone first; all widths start from it, with it as fixed reference."""
        return False

    def joint_rate(self, opt: str) -> float:
        """Factor on the learning rate where all widths start from a full width that was trained alone.

        Args:
            opt: timm's name of the optimizer.
        """
        del opt
        return 1.0

    @staticmethod
    def copies_of_classifier(model: Slimmable) -> list[Any]:
        """A classifier for each width below the full one, like the shared classifier at the start."""
        return [deepcopy(model.get_classifier()) for _ in model.widths[:-1]]

    def batches_per_step(self, num_widths: int) -> int:
        """How many batches a step takes: one for all widths unless a recipe says otherwise."""
        del num_widths
        return 1

    def own_epochs(self, epochs: int) -> int:
        """In how many of `epochs`, the first, a step's batches differ; in the others each holds the same images."""
        return epochs

    def create_loss(self, smoothing: float) -> SubModelLoss:
        """Loss on the logits of every sub-model."""
        return CrossEntropyLoss(label_smoothing=smoothing)

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """What every sub-model is trained for.

        Args:
            model: What is trained.
            loss: On logits.
            **triplet: The shared triplet loss, options of `Objective`.
        """
        del model
        return Objective(loss, **triplet)

    def task_options(self, updates_per_epoch: int) -> dict[str, Any]:
        """Options of `SFSCTask`; the gradients of all widths are summed unless a recipe says otherwise."""
        del updates_per_epoch
        return {'aggregation': 'sum'}

    def create_task(
        self,
        model: Slimmable,
        *,
        updates_per_epoch: int = 1,
        smoothing: float = 0.0,
        triplet_weight: float = 0.0,
        margin: float = 0.3,
        reference: nn.Module | None = None,
        **options: Any,
    ) -> SFSCTask:
        """Makes the task that trains a model by this recipe.

        Args:
            model: Slimmable model with a classifier.
            updates_per_epoch: Optimizer steps of an epoch.
            smoothing: Label smoothing.
            triplet_weight: Factor of the triplet loss on each sub-model's embeddings; 0 for none.
            margin: Of that triplet loss.
            reference: Finished full-width model, for recipes that follow one.
            **options: Of `SFSCTask`: seed, device, dtype, verbose.
        """
        triplet = BatchHardTriplet(margin) if triplet_weight else None
        objective = self.create_objective(
            model, self.create_loss(smoothing), triplet=triplet, triplet_weight=triplet_weight
        )
        options = {**self.task_options(updates_per_epoch), 'size_weight': self.size_weight, **options}
        if len(model.widths) > 1:  # a full width that is trained alone has none beside it
            options = {'random_widths': self.random_widths, **options}
        return SFSCTask(model, objective, reference=reference, **options)
