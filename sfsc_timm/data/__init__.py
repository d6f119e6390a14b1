"""Data: retrieval benchmarks behind one interface, image transforms, samplers and batches."""

from ._images import ImageReadError, OnError, SampleDataset, load_image
from ._loading import Batch, Batches, batches, make_transforms
from ._preload import preload
from ._registry import list_data, load_data, register_data
from ._samplers import EpochSampler, PKSampler, ShardSampler, ShuffleSampler, StackedSampler
from ._transforms import TensorTransform, eval_transform, train_transform
from ._types import DISTRACTOR, RetrievalData, Sample
from .emoji.build import build_emoji

__all__ = [
    'DISTRACTOR',
    'Batch',
    'Batches',
    'EpochSampler',
    'ImageReadError',
    'OnError',
    'PKSampler',
    'RetrievalData',
    'Sample',
    'SampleDataset',
    'ShardSampler',
    'ShuffleSampler',
    'StackedSampler',
    'TensorTransform',
    'batches',
    'build_emoji',
    'eval_transform',
    'list_data',
    'load_data',
    'load_image',
    'make_transforms',
    'preload',
    'register_data',
    'train_transform',
]
