"""Aggregation of the gradients of nested sub-models by projection."""

from .accumulator import GradientAccumulator
from .layout import PrivateSegments, SharedSlices, SliceLayout
from .pcgrad import PCGradWeighting, pcgrad_weights, sum_weights
from .projection import SCOPES, GradientProjection, Projection
from .weighting import Weighting, create_weighting

__all__ = [
    'SCOPES',
    'GradientAccumulator',
    'GradientProjection',
    'PCGradWeighting',
    'PrivateSegments',
    'Projection',
    'SharedSlices',
    'SliceLayout',
    'Weighting',
    'create_weighting',
    'pcgrad_weights',
    'sum_weights',
]
