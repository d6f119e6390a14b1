"""Aggregation of the gradients of nested sub-models by projection."""

from .._moved import moved
from .accumulator import GradientAccumulator
from .pcgrad import PCGradWeighting, pcgrad_weights, sum_weights
from .projection import SCOPES, GradientProjection, Projection
from .weighting import Weighting, create_weighting

__all__ = [
    'SCOPES',
    'GradientAccumulator',
    'GradientProjection',
    'PCGradWeighting',
    'Projection',
    'Weighting',
    'create_weighting',
    'pcgrad_weights',
    'sum_weights',
]

__getattr__ = moved(
    __name__,
    {'sfsc_timm.slim': ('SliceLayout',)},
    {'SharedSlices': 'sfsc_timm.slim.SharedCut(shapes)', 'PrivateSegments': 'sfsc_timm.slim.PrivateCut(shapes)'},
)
