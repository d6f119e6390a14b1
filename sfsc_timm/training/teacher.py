"""All widths start from a full width that is finished, and that they learn from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.refit import refit
from ..data import Batches
from ..models import Slimmable, estimate_statistics, sort_channels, start_from, start_from_folded

__all__ = ['principal_neck', 'start_fitted', 'start_from_teacher']

_logger = logging.getLogger(__name__)
_SORTED = 256  # images, from which on the order of channels hardly changes
_FITTED = 1024  # images, from which on a neck agrees hardly better


def start_from_teacher(model: Slimmable, teacher: Slimmable, batches: Batches) -> None:
    """Gives a model the weights of a finished full width, channels sorted by importance where the family allows it.

    Args:
        model: Changed in place; its width 1.0 then equals the teacher.
        teacher: Network of full width.
        batches: Training images as the model takes them, of which the first few hundred are looked at.
    """
    start_from(model, teacher)
    _sort(model, _first(batches, _SORTED, model))


def start_fitted(model: Slimmable, given: Slimmable, neck: nn.Linear | None, batches: Batches) -> None:
    """As `start_from_teacher`, and narrow widths' norms and necks are fitted to the first thousand images, unlabelled.

    Args:
        model: Changed in place, with necks of each width's own that have no norm.
        given: Network with the full width's weights.
        neck: What takes the place of its neck (None: that neck, folded).
        batches: Training images as the model takes them.

    Raises:
        ValueError: There are too few images to fit to.
    """
    start_from_folded(model, given, neck)
    images = _first(batches, _FITTED, model)
    _sort(model, images)
    narrow = model.widths[:-1]
    estimate_statistics(model, images, narrow)
    fitted = refit(model, images, narrow)
    with torch.no_grad():
        for found in fitted:
            with model.at_width(found.width):
                layer: Any = model.neck.get_submodule('proj')
                layer.weight.copy_(found.weight)
                layer.bias.copy_(found.bias)
    model.refresh()


@torch.no_grad()
def principal_neck(model: Slimmable, batches: Batches) -> nn.Linear:
    """The map of the full width's centred pooled features to their principal directions, one for each number.

    Of all maps to so few numbers it changes the cosines between centred features least. What all images share is taken
    away first: features that follow a ReLU have one large direction in common, by which narrow widths would seem to
    agree where they do not.

    Args:
        model: The slimmable model.
        batches: Training images as it takes them, of which the first thousand are looked at.

    Raises:
        ValueError: An embedding has more numbers than there are features.
    """
    dense: Any = model.extract(1.0)
    size, width = model.embed_dim, dense.get_classifier().in_features
    if size > width:
        raise ValueError(f'embed_dim must be at most the number of pooled features, {width}, got {size}')
    features = torch.cat(
        [dense.forward_head(dense.forward_features(x), pre_logits=True) for x in _first(batches, _FITTED, model)]
    )
    center = features.double().mean(0)
    directions = F.normalize(features.double() - center, dim=1)
    _, vectors = torch.linalg.eigh(directions.T @ directions)
    vectors = vectors.flip(1)[:, :size]
    neck = nn.Linear(width, size, device=features.device, dtype=features.dtype)
    neck.weight.copy_(vectors.T)
    neck.bias.copy_(-center @ vectors)
    return neck


def _sort(model: Slimmable, images: Sequence[Tensor]) -> None:
    try:
        sort_channels(model, images)
    except RuntimeError as error:
        _logger.warning('the channels stay in their order: %s', error)


def _first(batches: Batches, count: int, model: nn.Module) -> list[Tensor]:
    """The first images of the first epoch: the same ones whether the run was interrupted in between or not."""
    if batches.sampler is not None:
        batches.sampler.set_epoch(0)
    batches.start_at(0)
    device = next(model.parameters()).device
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch.images.to(device))
        if sum(map(len, found)) >= count:
            break
    return found
