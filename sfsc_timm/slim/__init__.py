"""The slimmable engine: a module reads its tensors at the active width. See README.md in this folder."""

from .between import leaves_between
from .frozen import frozen, guards
from .geometry import Cut, PrivateCut, Rectangle, SharedCut, SliceLayout
from .guard import Guard
from .insert import insert_width
from .intact import check_intact
from .leaves import slice_layout, sliced_leaves
from .readers import SlimState, densify, slim_state, slim_states
from .twins import NORMS, slim

__all__ = [
    'NORMS',
    'Cut',
    'Guard',
    'PrivateCut',
    'Rectangle',
    'SharedCut',
    'SliceLayout',
    'SlimState',
    'check_intact',
    'densify',
    'frozen',
    'guards',
    'insert_width',
    'leaves_between',
    'slice_layout',
    'sliced_leaves',
    'slim',
    'slim_state',
    'slim_states',
]
