"""The slimmable engine: a module reads its tensors at the active width. See README.md in this folder."""

from .geometry import Cut, PrivateCut, SharedCut
from .leaves import sliced_leaves
from .readers import SlimState, densify, prepared, slim_state, slim_states
from .twins import NORMS, slim

__all__ = [
    'NORMS',
    'Cut',
    'PrivateCut',
    'SharedCut',
    'SlimState',
    'densify',
    'prepared',
    'sliced_leaves',
    'slim',
    'slim_state',
    'slim_states',
]
