"""Building blocks: the slimmable engine and the layers on top of the backbone."""

from ._cuts import Cut, PrivateCut, SharedCut
from ._heads import CosineLinear, classify_fixed, create_neck, fold_neck
from ._leaves import sliced_leaves
from ._slimmed import SlimState, densify, prepared, slim_state, slim_states
from ._slimming import NORMS, slim

__all__ = [
    'NORMS',
    'CosineLinear',
    'Cut',
    'PrivateCut',
    'SharedCut',
    'SlimState',
    'classify_fixed',
    'create_neck',
    'densify',
    'fold_neck',
    'prepared',
    'sliced_leaves',
    'slim',
    'slim_state',
    'slim_states',
]
