"""Aggregation of the gradients of nested sub-models by projection."""

from ._accumulator import GradientAccumulator
from ._layout import PrivateSegments, SharedSlices, SliceLayout
from ._pcgrad import PCGradWeighting, pcgrad_weights, sum_weights
from ._projection import SCOPES, GradientProjection, Projection
from ._weighting import Weighting, create_weighting

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
