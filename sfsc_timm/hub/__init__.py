"""Checkpoints: saved in timm's layout, whole or one width each, published on the Hub, and loaded from anywhere."""

from ._card_content import About
from ._dense import DenseWidths
from ._folders import SECTION, save_model, save_width, save_widths
from ._identity import compatibility_id
from ._int8 import quantisation_loss, quantise_onnx
from ._load import Checkpoint, load_checkpoint_model
from ._load_width import load_width
from ._onnx import export_onnx, onnx_session, run_onnx, write_preprocessing
from ._plan import Branch, Plan, PlannedFile, prepare
from ._publish import Publication, check_login, publish, push
from ._ship import ship
from ._source import find_checkpoint

__all__ = [
    'SECTION',
    'About',
    'Branch',
    'Checkpoint',
    'DenseWidths',
    'Plan',
    'PlannedFile',
    'Publication',
    'check_login',
    'compatibility_id',
    'export_onnx',
    'find_checkpoint',
    'load_checkpoint_model',
    'load_width',
    'onnx_session',
    'prepare',
    'publish',
    'push',
    'quantisation_loss',
    'quantise_onnx',
    'run_onnx',
    'save_model',
    'save_width',
    'save_widths',
    'ship',
    'write_preprocessing',
]
