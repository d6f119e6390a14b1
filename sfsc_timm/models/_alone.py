"""A word of warning to who trains one width only."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

_logger = logging.getLogger(__name__)

_SURE = 3  # training forwards at one width in a row; joint training switches before each


def warn_if_alone(model: nn.Module, widths: Sequence[float], width: float) -> None:
    """Logs, once for each stretch of training at one width, what it does to the other widths.

    Args:
        model: The slimmable model, which remembers how often it has been asked.
        widths: All of its widths.
        width: The active one.
    """
    if not torch.is_grad_enabled() or len(widths) == 1:
        return
    before, times = model.__dict__.get('_alone', (width, 0))
    times = times + 1 if before == width else 1
    model.__dict__['_alone'] = (width, min(times, _SURE + 1))
    if times == _SURE:
        others = ', '.join(f'{other:g}' for other in widths if other != width)
        _logger.warning(
            'Only width %g is being trained. The weights it shares change under the widths %s, weight decay shrinks '
            'what it does not use, and their normalisation stays behind: they will no longer be compatible with it. '
            "sfsc_timm.timm_train trains all widths in timm's train.py; model.extract() gives this width alone.",
            width,
            others,
        )


def count_anew(model: nn.Module) -> None:
    """Tells that another width has trained in between, in evaluation mode, which nobody has been asked about."""
    model.__dict__.pop('_alone', None)
