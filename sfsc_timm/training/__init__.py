"""Training: the loop, its settings, and whole runs that can be resumed."""

from .config import Fit, TrainConfig, read_config, write_config
from .folder import resume_config, run_folder
from .loop import Loop, fit
from .report import Report, Reports, TensorBoard, WandB
from .run import TrainingRun
from .teacher import start_from_teacher

__all__ = [
    'Fit',
    'Loop',
    'Report',
    'Reports',
    'TensorBoard',
    'TrainConfig',
    'TrainingRun',
    'WandB',
    'fit',
    'read_config',
    'resume_config',
    'run_folder',
    'start_from_teacher',
    'write_config',
]
