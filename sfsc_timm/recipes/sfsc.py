"""SFSC: uncertainty sets the sub-models' priorities, conflicting gradients are projected; and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..losses import Aligned, Objective, SubModelLoss, create_loss
from ..models import Slimmable
from ._base import Recipe
from ._registry import register_recipe

__all__ = ['SFSC']


@register_recipe
@dataclass(frozen=True)
class SFSC(Recipe):
    """One switchable network, evidential loss on the shared classifier, gradient projection (Wu et al., CVPR 2023).

    Beyond the paper, each width draws batches of its own until the last epochs; `sfsc-paper` is the plain reading.

    Attributes:
        criterion: 'evidential', or 'cross_entropy' to switch the uncertainty off.
        evidence: From logits to evidence: 'exp', 'softplus' or 'relu'.
        kl_weight: Factor of the regulariser KL(Dir(alpha) || Dir(1)); 0 for none.
        kl_epochs: Epochs over which the regulariser is let in.
        aggregation: 'pcgrad' (gradient projection), or 'sum' to switch it off.
        scope: Over which parameters gradients are compared: 'shell', 'global' or 'layer'.
        distill: Factor of a loss that draws smaller widths' embeddings to the full width's; 0 for none.
        cross: Factor of the triplet loss with smaller widths' anchors among the full width's embeddings; 0 for none.
        own_batches: Share of the epochs, in [0, 1], in which each width draws batches of its own; in the rest, the last
            ones, all draw the same images, each augmented anew, which brings the widths closer to one another. True for
            1, False or 0 for one batch for all from start to end. Every width always sees as many images an epoch; own
            ones let the weights that widths share see more of them at once. Each image is read once for each width.
            With `distill` or `cross`, the full width also looks at the smaller ones' batches.

    Raises:
        ValueError: If `own_batches` is out of its range.
    """

    name = 'sfsc'
    title = 'SFSC'

    criterion: str = 'evidential'
    evidence: str = 'exp'
    kl_weight: float = 0.0
    kl_epochs: int = 10
    aggregation: str = 'pcgrad'
    scope: str = 'shell'
    distill: float = 0.0
    cross: float = 0.0
    own_batches: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.own_batches <= 1:
            raise ValueError(f'own_batches must be a share of the epochs in [0, 1], got {self.own_batches}')

    def create_loss(self, smoothing: float) -> SubModelLoss:
        """The evidential loss, or the cross-entropy."""
        if self.criterion != 'evidential':
            return create_loss(self.criterion, label_smoothing=smoothing)
        return create_loss('evidential', evidence=self.evidence, kl_weight=self.kl_weight, label_smoothing=smoothing)

    def create_objective(self, model: Slimmable, loss: SubModelLoss, **triplet: Any) -> Objective:
        """Identification by the shared classifier, and agreement with the full width if that is asked for."""
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

    Evidence softplus(logits), the closed-form integral alone, projection per shell, one batch for all widths.
    """

    name = 'sfsc-paper'
    title = 'SFSC (paper)'

    evidence: str = 'softplus'
    own_batches: float = 0.0


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

    criterion: str = 'cross_entropy'


@register_recipe
@dataclass(frozen=True)
class Sum(SFSC):
    """Ablation: cross-entropy of all widths on the shared classifier, gradients summed, one batch for all widths."""

    name = 'sum'
    title = 'Sum'

    criterion: str = 'cross_entropy'
    aggregation: str = 'sum'
    own_batches: float = 0.0
