"""Losses of one sub-model: SFSC's evidential loss, and the losses it is compared with."""

from ._aligned import Aligned
from ._base import SubModelLoss
from ._compatible import Asymmetric, BackwardCompatible
from ._cross_entropy import CrossEntropyLoss
from ._evidential import EVIDENCES, EvidentialLoss, kl_annealing
from ._factory import create_loss, list_losses
from ._objective import Objective, Reference, SubModelOutput
from ._triplet import BatchHardTriplet

__all__ = [
    'EVIDENCES',
    'Aligned',
    'Asymmetric',
    'BackwardCompatible',
    'BatchHardTriplet',
    'CrossEntropyLoss',
    'EvidentialLoss',
    'Objective',
    'Reference',
    'SubModelLoss',
    'SubModelOutput',
    'create_loss',
    'kl_annealing',
    'list_losses',
]
