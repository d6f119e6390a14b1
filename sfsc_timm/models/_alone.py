"""A word of warning to who trains one width only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ._slimmable import Slimmable

_logger = logging.getLogger(__name__)

_SURE = 3  # training forwards in a row; joint training switches before each


def warn_if_alone(model: Slimmable) -> None:
    """Logs, once, what it does to the other widths that only the active one is trained."""
    state = model._slim
    if not torch.is_grad_enabled() or len(state.widths) == 1 or state.forwards_alone >= _SURE:
        return
    state.forwards_alone += 1
    if state.forwards_alone == _SURE:
        others = ', '.join(f'{width:g}' for width in state.widths if width != model.width)
        _logger.warning(
            'Only width %g is being trained. The weights it shares change under the widths %s, weight decay shrinks '
            'what it does not use, and their normalisation stays behind: they will no longer be compatible with it. '
            "sfsc_timm.timm_train trains all widths in timm's train.py; model.extract() gives this width alone.",
            model.width,
            others,
        )
