"""What a task takes: a model that can be trained at every width, and an objective."""

from __future__ import annotations

from typing import Any

from timm.layers import SplitBatchNorm2d
from timm.utils import unwrap_model
from torch import nn

from ..losses import Nested, Objective, SubModelLoss, create_loss, list_losses
from ..models import get_widths

__all__ = ['check_model', 'create_objective', 'nested']


def check_model(model: nn.Module) -> None:
    """Checks that a model is slimmable, with a classifier and something to train.

    Raises:
        ValueError: If it is not.
    """
    get_widths(model)
    for name, module in model.named_modules():
        if isinstance(module, (nn.SyncBatchNorm, SplitBatchNorm2d)):
            raise ValueError(
                f'model must have its own normalisation for each width, got a {type(module).__name__} at {name!r}: '
                'convert_sync_batchnorm (--sync-bn) and convert_splitbn_model (--split-bn) know one width only; leave '
                'them out'
            )
    if not getattr(model, 'num_classes', 1):
        raise ValueError(
            'model must have a classifier to be trained with, got num_classes=0; call model.reset_classifier(classes)'
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            'model must have a parameter that requires a gradient, got none; call model.requires_grad_() first'
        )


def check_widths_kept(model: nn.Module, widths: tuple[float, ...]) -> None:
    """Checks that a model still has the widths that a task was made for.

    Raises:
        RuntimeError: One was added since.
    """
    if get_widths(model) != widths:
        raise RuntimeError(
            f'the model must have the widths that the task was made for, {widths}, got {get_widths(model)}; make the '
            'task, and its optimizer, after model.add_width'
        )


def check_composed(composed: float, objective: Objective, reference: nn.Module | None, own_batches: bool) -> float:
    """Returns `composed` if there is something to learn of images without a label.

    Raises:
        ValueError: It is negative, there is no finished reference or nothing that compares with it, or each width has
            a batch of its own.
    """
    if not composed >= 0:
        raise ValueError(f'composed must be at least 0, a share of the batch, got {composed}')
    if composed and (reference is None or not objective.uses_reference or own_batches):
        raise ValueError(
            f'composed must be 0 but for an objective that compares widths with a finished reference on one batch for '
            f'all, got {composed}; give reference and such an objective (losses.Aligned), and leave out own_batches'
        )
    return composed


def create_objective(criterion: Any, options: dict[str, Any] | None) -> Objective:
    """Makes the objective of a criterion.

    Args:
        criterion: An objective, a loss on logits, or the name of one.
        options: Of the loss, if it is given by name.

    Raises:
        ValueError: If it is none of them, or the options are unknown or beside an object.
    """
    if isinstance(criterion, str):
        criterion, options = create_loss(criterion, **(options or {})), None
    if isinstance(criterion, Objective | SubModelLoss) and options:
        raise ValueError(
            f'criterion_kwargs must be left out where criterion is an object, got {options} beside {criterion}; give '
            'them to the object'
        )
    return criterion if isinstance(criterion, Objective) else Objective(_check_criterion(criterion))


def nested(objective: Objective, model: nn.Module, weight: float) -> Objective:
    """The objective at every size of a model's embedding; as it is where there is one size.

    Args:
        objective: Of one size, or a `Nested` already.
        model: What it is for.
        weight: Factor of the loss of each smaller size.

    Raises:
        ValueError: There is a weight but no smaller size, or it is negative.
    """
    dims = getattr(unwrap_model(model), 'embed_dims', ())
    if len(dims) > 1 and not isinstance(objective, Nested):
        return Nested(objective, dims, weight)
    if weight != 1.0:
        raise ValueError(
            f'size_weight must be left out for a model of one embedding size, got {weight}; create it with '
            'embed_dims=(...)'
        )
    return objective


def _check_criterion(criterion: Any) -> SubModelLoss:
    if not isinstance(criterion, SubModelLoss):
        raise ValueError(
            f'criterion must be one of {", ".join(list_losses())}, or a sfsc_timm.losses.SubModelLoss or Objective, '
            f'got {criterion!r}'
        )
    if criterion.reduction == 'none':
        raise ValueError("criterion must have the reduction 'mean' or 'sum', got 'none'; give one of them")
    return criterion
