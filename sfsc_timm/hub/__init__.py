"""The Hugging Face Hub: a checkpoint published as one slimmable model and a branch for each width, and loaded again."""

from .._moved import moved
from .card_content import About
from .load_width import load_width
from .plan import Branch, Plan, PlannedFile, prepare
from .publish import Publication, check_login, publish, push
from .ship import ship

__all__ = [
    'About',
    'Branch',
    'Plan',
    'PlannedFile',
    'Publication',
    'check_login',
    'load_width',
    'prepare',
    'publish',
    'push',
    'ship',
]

__getattr__ = moved(
    __name__,
    {
        'sfsc_timm.checkpoints': (
            *('SECTION', 'Checkpoint', 'DenseWidths', 'compatibility_id', 'find_checkpoint'),
            *('load_checkpoint_model', 'save_model', 'save_width', 'save_widths'),
        ),
        'sfsc_timm.export': (
            *('export_onnx', 'onnx_session', 'quantisation_loss', 'quantise_onnx', 'run_onnx'),
            'write_preprocessing',
        ),
    },
)
