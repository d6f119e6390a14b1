"""Checkpoints in timm's layout, whole or one width each, and what belongs beside the weights."""

from .dense import DenseWidths
from .identity import compatibility_id, space_id, weights_digest
from .load import Checkpoint, load_checkpoint_model
from .save import SECTION, save_model, save_width, save_widths
from .source import find_checkpoint

__all__ = [
    'SECTION',
    'Checkpoint',
    'DenseWidths',
    'compatibility_id',
    'find_checkpoint',
    'load_checkpoint_model',
    'save_model',
    'save_width',
    'save_widths',
    'space_id',
    'weights_digest',
]
