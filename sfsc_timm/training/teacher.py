"""All widths start from a full width that was trained alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import Tensor

from ..data import Batches
from ..models import Slimmable, sort_channels, start_from

__all__ = ['start_from_teacher']

_logger = logging.getLogger(__name__)
_ENOUGH = 256  # images, from which on the order of channels hardly changes


def start_from_teacher(model: Slimmable, teacher: Slimmable, batches: Batches) -> None:
    """Gives a model the weights of a finished full width, channels sorted by importance where the family allows it.

    Args:
        model: Changed in place; its width 1.0 then equals the teacher.
        teacher: Network of full width.
        batches: Training images as the model takes them, of which the first few hundred are looked at.
    """
    start_from(model, teacher)
    if batches.sampler is not None:
        batches.sampler.set_epoch(0)  # the same images whether the run was interrupted here or not
    batches.start_at(0)
    device = next(model.parameters()).device
    try:
        sort_channels(model, [images.to(device) for images in _some(batches)])
    except RuntimeError as error:
        _logger.warning('the channels stay in their order: %s', error)


def _some(batches: Batches) -> Iterator[Tensor]:
    seen = 0
    for batch in batches:
        yield batch.images
        seen += len(batch.images)
        if seen >= _ENOUGH:
            return
