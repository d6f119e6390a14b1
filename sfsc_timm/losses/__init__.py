"""Losses of one sub-model: SFSC's evidential loss, and the losses it is compared with."""

from .aligned import Aligned
from .base import SubModelLoss
from .compatible import Asymmetric, BackwardCompatible
from .cross_entropy import CrossEntropyLoss
from .evidential import EVIDENCES, EvidentialLoss, kl_annealing
from .factory import create_loss, list_losses
from .nested import Nested
from .objective import Objective, Reference, SubModelOutput
from .regression import EmbeddingRegression
from .triplet import BatchHardTriplet

__all__ = [
    'EVIDENCES',
    'Aligned',
    'Asymmetric',
    'BackwardCompatible',
    'BatchHardTriplet',
    'CrossEntropyLoss',
    'EmbeddingRegression',
    'EvidentialLoss',
    'Nested',
    'Objective',
    'Reference',
    'SubModelLoss',
    'SubModelOutput',
    'create_loss',
    'kl_annealing',
    'list_losses',
]
