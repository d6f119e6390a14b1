"""SFSC: uncertainty sets the sub-models' priorities, conflicting gradients are projected; and its presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.optim import get_optimizer_info
from torch import nn

from .._settings import setting, with_default
from ..gradients import SCOPES, create_weighting
from ..losses import EVIDENCES, Aligned, Objective, SubModelLoss, create_loss, list_losses
from ..models import Slimmable
from ..tasks import SFSCTask
from ._base import Recipe
from ._registry import register_recipe

__all__ = ['SFSC']


@register_recipe
@dataclass(frozen=True)
class SFSC(Recipe):
    """One switchable network, evidential loss on the shared classifier, gradient projection (Wu et al., CVPR 2023).

    Beyond the paper, the full width is trained alone first, as long again: all widths start from it, its channels
    sorted by importance, and learn its embeddings, of images that are made of the training ones, too, since a small
    network that agrees with it on the training identities alone does not on others. `sfsc-paper` is the plain reading.

    Attributes:
        criterion: 'evidential', or 'cross_entropy' to switch the uncertainty off.
        evidence: From logits to evidence: 'exp', 'softplus' or 'relu'.
        kl_weight: Factor of the regulariser KL(Dir(alpha) || Dir(1)); 0 for none.
        kl_epochs: Epochs over which the regulariser is let in.
        aggregation: 'pcgrad' (gradient projection), or 'sum' to switch it off.
        scope: Over which parameters gradients are compared: 'shell', 'global' or 'layer'.
        teacher: Factor of the regression onto the embeddings of a full width that was trained alone and stays fixed, in
            1 - cosine; 0 for no such stage. With it, the triplet loss on its own embeddings is the full width's alone.
        composed: With a `teacher`: cut, turned and pasted images without a label for smaller widths to learn its
            embeddings of, as a share of the batch. They cost these widths' time over again.
        joint_lr: With a `teacher`: factor on the learning rate from when all widths train. None for 1 with an optimizer
            that divides by the size of the gradients, as Adam does, and for 0.3 with one that does not, as SGD: the
            regression is the largest part of the loss.
        distill: Without a `teacher`: factor of a loss that draws smaller widths' embeddings to the full width's as it
            learns; 0 for none.
        cross: Factor of the triplet loss with smaller widths' anchors among the full width's embeddings; 0 for none.
        own_batches: Share of the epochs, in [0, 1], in which each width draws batches of its own; in the rest, the last
            ones, all draw the same images, each augmented anew, which brings the widths closer to one another. True for
            1, False or 0 for one batch for all from start to end. Every width always sees as many images an epoch; own
            ones let the weights that widths share see more of them at once. Each image is read once for each width.
            With `distill` or `cross`, the full width also looks at the smaller ones' batches.

    Raises:
        ValueError: An option is unknown, out of its range, or does not go with another.
    """

    name = 'sfsc'
    title = 'SFSC'

    criterion: str = setting('evidential', choices=tuple(list_losses()))
    evidence: str = setting('exp', choices=EVIDENCES)
    kl_weight: float = setting(0.0, within='[0, inf)')
    kl_epochs: int = setting(10, within='[0, inf)')
    aggregation: str = 'pcgrad'
    scope: str = setting('shell', choices=SCOPES)
    teacher: float = setting(20.0, within='[0, inf)')
    composed: float = setting(1.0, within='[0, inf)')
    joint_lr: float | None = setting(None, within='(0, 1]')
    distill: float = setting(0.0, within='[0, inf)')
    cross: float = setting(0.0, within='[0, inf)')
    own_batches: float = setting(0.0, within='[0, 1]', noun='a share of the epochs', allows_bool=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            create_weighting(self.aggregation, torch.Generator())
        except ValueError as error:
            raise ValueError(f'aggregation must be known, got {self.aggregation!r}: {error}') from error
        if self.teacher:
            self._refuse(('distill', 'own_batches'), 'with a teacher (teacher=0 is for none)')
        else:
            self._refuse(('composed', 'joint_lr'), 'where teacher is 0')
        if self.criterion != 'evidential':
            self._refuse(('evidence', 'kl_weight', 'kl_epochs'), f'with criterion {self.criterion!r}')
        elif not self.kl_weight:
            self._refuse(('kl_epochs',), 'where kl_weight is 0')

    def _refuse(self, names: Sequence[str], where: str) -> None:
        """Refuses options that would be passed over: those that are not as the recipe has them."""
        for name in names:
            if (value := getattr(self, name)) != (default := getattr(type(self), name)):
                raise ValueError(
                    f'{name} must be left out {where}, got {value!r}, which would be passed over (default {default!r})'
                )

    def create_loss(self, smoothing: float) -> SubModelLoss:
        """The evidential loss, or the cross-entropy."""
        if self.criterion != 'evidential':
            return create_loss(self.criterion, label_smoothing=smoothing)
        return create_loss('evidential', evidence=self.evidence, kl_weight=self.kl_weight, label_smoothing=smoothing)

    @property
    def begins_alone(self) -> bool:
        """As `teacher` says."""
        return self.teacher > 0

    def joint_rate(self, opt: str) -> float:
        """As `joint_lr` says."""
        if not self.teacher:
            return 1.0
        if self.joint_lr is not None:
            return self.joint_lr
        return 1.0 if get_optimizer_info(opt.lower().removeprefix('lookahead_')).has_betas else 0.3

    def create_task(self, model: Slimmable, *, reference: nn.Module | None = None, **options: Any) -> SFSCTask:
        """Makes the task of all widths with a finished `reference`; without one, that of a recipe without a teacher."""
        if self.teacher and reference is None:
            cls = type(self)
            alone = replace(self, teacher=0.0, composed=cls.composed, joint_lr=cls.joint_lr)
            return alone.create_task(model, **options)
        return super().create_task(model, reference=reference, **options)

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Identification by the shared classifier, and agreement with the full width if that is asked for."""
        if self.teacher:
            full = len(model.widths) - 1
            return Aligned(loss, distill=self.teacher, cross=self.cross, triplet_from=full, **triplet)
        if not self.distill and not self.cross:
            return super().create_objective(model, loss, **triplet)
        return Aligned(loss, distill=self.distill, cross=self.cross, **triplet)

    def task_options(self, updates_per_epoch: int) -> dict[str, Any]:
        """Projection, and the annealing of the regulariser."""
        steps = self.kl_epochs * updates_per_epoch if self.kl_weight else 0
        return {
            'aggregation': self.aggregation,
            'scope': self.scope,
            'kl_annealing_steps': steps,
            'own_batches': self.own_batches > 0,
            'composed': self.composed if self.teacher else 0.0,
        }

    def batches_per_step(self, num_widths: int) -> int:
        """One, or one for each width."""
        return num_widths if self.own_batches else 1

    def own_epochs(self, epochs: int) -> int:
        """The share of them."""
        return round(self.own_batches * epochs)


@register_recipe
@dataclass(frozen=True)
class SFSCPaper(SFSC):
    """SFSC as its slides state it.

    Evidence softplus(logits), the closed-form integral alone, projection per shell, all widths from the start.
    """

    name = 'sfsc-paper'
    title = 'SFSC (paper)'

    evidence: str = with_default(SFSC, 'evidence', 'softplus')
    teacher: float = with_default(SFSC, 'teacher', 0.0)


@register_recipe
@dataclass(frozen=True)
class Uncertainty(SFSC):
    """Ablation: the evidential loss, gradients summed."""

    name = 'uncertainty'
    title = 'Uncertainty only'

    aggregation: str = 'sum'


@register_recipe
@dataclass(frozen=True)
class Projection(SFSC):
    """Ablation: cross-entropy, gradients projected."""

    name = 'projection'
    title = 'Projection only'

    criterion: str = with_default(SFSC, 'criterion', 'cross_entropy')


@register_recipe
@dataclass(frozen=True)
class Sum(SFSC):
    """The plain joint loss: cross-entropy of all widths on the shared classifier, gradients summed, no teacher."""

    name = 'sum'
    title = 'Sum'

    criterion: str = with_default(SFSC, 'criterion', 'cross_entropy')
    aggregation: str = 'sum'
    teacher: float = with_default(SFSC, 'teacher', 0.0)
