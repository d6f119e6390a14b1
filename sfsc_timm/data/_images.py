"""Images from files or arrays, one at a time."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ._decode import ImageReadError, load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL import Image

    from ._types import Sample

OnError = Literal['raise', 'skip']


class Decoded(NamedTuple):
    """A transformed image with its labels and its place in the list of samples."""

    image: torch.Tensor
    identity: int
    camera: int
    position: int


class Unreadable(NamedTuple):
    """What stands for an image that could not be read and is to be skipped."""

    position: int
    reason: str


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and PyTorch's global generators and restores them afterwards.

    Image transforms of torchvision and timm draw from all three, so this is what makes an augmented image depend on
    its seed alone and not on how many worker processes there are.
    """
    # The transforms use NumPy's legacy global generator.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed this leaves the GPU's generator alone
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class SampleDataset(Dataset[Decoded | Unreadable]):
    """Samples as transformed tensors.

    An item is asked for by its index, or by (index, seed): the seed then fixes the transform's random draws.

    Args:
        samples: What to read.
        transform: Maps a PIL image to a tensor (C, H, W).
        mode: Mode of the PIL image, 'RGB' or 'L' for a model with one input channel.
        on_error: 'raise' stops at an unreadable image, 'skip' returns an `Unreadable` in its place.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Image.Image], torch.Tensor],
        mode: str = 'RGB',
        on_error: OnError = 'raise',
    ) -> None:
        if on_error not in {'raise', 'skip'}:
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
        self.samples = samples
        self.transform = transform
        self.mode = mode
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> Decoded | Unreadable:
        index, seed = key if isinstance(key, tuple) else (key, None)
        sample = self.samples[index]
        try:
            image = load_image(sample.image, self.mode)
        except ImageReadError as error:
            if self.on_error == 'raise':
                raise
            return Unreadable(index, str(error))
        if seed is None:
            tensor = self.transform(image)
        else:
            with seeded(seed):
                tensor = self.transform(image)
        return Decoded(tensor, sample.identity, sample.camera, index)
