"""Losses of one sub-model: SFSC's evidential loss and the cross-entropy it is compared with."""

from ._base import SubModelLoss
from ._cross_entropy import CrossEntropyLoss
from ._evidential import EVIDENCES, EvidentialLoss, kl_annealing
from ._factory import create_loss, list_losses

__all__ = [
    'EVIDENCES',
    'CrossEntropyLoss',
    'EvidentialLoss',
    'SubModelLoss',
    'create_loss',
    'kl_annealing',
    'list_losses',
]
