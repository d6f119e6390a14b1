"""Training: the loop, its settings, and whole runs that can be resumed."""

from ._config import Fit, TrainConfig, read_config, write_config
from ._loop import Loop, fit
from ._report import Report, Reports, TensorBoard, WandB
from ._run import TrainingRun, resume_config, run_folder

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
    'write_config',
]
