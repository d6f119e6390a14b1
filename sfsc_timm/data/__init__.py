"""Data: retrieval benchmarks behind one interface, image transforms, samplers and batches."""

from .._moved import moved
from ._decode import DECODING, DECODING_RULES, ImageReadError, load_image
from ._images import OnError, SampleDataset
from ._loading import Batch, Batches, batches, make_transforms
from ._preload import preload
from ._preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from ._registry import list_data, load_data, register_data
from ._samplers import EpochSampler, PKSampler, ShardSampler, ShuffleSampler, StackedSampler
from ._transforms import TensorTransform, train_transform
from ._types import DISTRACTOR, RetrievalData, Sample
from .emoji.build import build_emoji

__all__ = [
    'CROP_MODES',
    'DECODING',
    'DECODING_RULES',
    'DISTRACTOR',
    'INTERPOLATIONS',
    'Batch',
    'Batches',
    'EpochSampler',
    'ImageReadError',
    'OnError',
    'PKSampler',
    'Preprocessing',
    'RetrievalData',
    'Sample',
    'SampleDataset',
    'ShardSampler',
    'ShuffleSampler',
    'StackedSampler',
    'TensorTransform',
    'batches',
    'build_emoji',
    'list_data',
    'load_data',
    'load_image',
    'make_transforms',
    'preload',
    'register_data',
    'train_transform',
]

__getattr__ = moved(__name__, {}, {'eval_transform': 'sfsc_timm.data.Preprocessing(size, mean, std, ...).transform()'})
