"""Checkpoints: saved in timm's Hub and local-dir layout, whole or one width each, and loaded from anywhere."""

from ._dense import DenseWidths
from ._folders import SECTION, save_width, save_widths
from ._identity import compatibility_id
from ._load import Checkpoint, load_checkpoint_model

__all__ = [
    'SECTION',
    'Checkpoint',
    'DenseWidths',
    'compatibility_id',
    'load_checkpoint_model',
    'save_width',
    'save_widths',
]
