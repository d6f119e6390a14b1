"""One function that serves batches, from files through a DataLoader or from arrays in memory."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from ._decode import ImageReadError
from ._images import Decoded, OnError, SampleDataset, Unreadable
from ._samplers import EpochSampler
from ._transforms import TensorTransform, train_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL import Image

    from ._preprocessing import ImageTransform, Preprocessing
    from ._types import RetrievalData, Sample

_logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Transformed images with their labels.

    Attributes:
        images: Float (B, C, H, W).
        identities: int64 (B,); class labels when the samples are `RetrievalData.training`.
        cameras: int64 (B,).
        indices: int64 (B,), places in the list of samples.
    """

    images: torch.Tensor
    identities: torch.Tensor
    cameras: torch.Tensor
    indices: torch.Tensor


class _Order:
    """Which samples come in which batch, and the source of their augmentation."""

    def __init__(self, size: int, batch_size: int, sampler: EpochSampler | None, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, got {batch_size}.')
        self.size = size
        self.batch_size = batch_size
        self.sampler = sampler
        self.seed = seed
        self.first = 0

    def __len__(self) -> int:
        return -(-self.size // self.batch_size) if self.sampler is None else len(self.sampler)

    def __iter__(self) -> Iterator[tuple[list[int], np.random.Generator]]:
        """Yields each batch from number `first` on, with its own source of augmentation."""
        first, self.first = self.first, 0
        epoch = 0 if self.sampler is None else self.sampler.epoch
        for number, indices in enumerate(self._all()):
            if number >= first:
                yield indices, np.random.default_rng([self.seed, epoch, number])

    def _all(self) -> Iterator[list[int]]:
        if self.sampler is not None:
            yield from self.sampler
        else:
            for start in range(0, self.size, self.batch_size):
                yield list(range(start, min(start + self.batch_size, self.size)))


class Batches(ABC):
    """Batches of samples, iterated once an epoch.

    Attributes:
        samples: What is served.
        sampler: What draws the batches; None if all samples come in order.
        skipped: Reason for each sample, by index, that was left out as unreadable, filled while iterating.
    """

    def __init__(self, samples: Sequence[Sample], order: _Order) -> None:
        self.samples = samples
        self.sampler = order.sampler
        self.skipped: dict[int, str] = {}
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def start_at(self, batch: int) -> None:
        """Has the next iteration begin with this batch, as if those before it had been served."""
        if not 0 <= batch <= len(self):
            raise ValueError(f'batch must be in [0, {len(self)}], got {batch}.')
        self._order.first = batch

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of the sampler's epoch, or all samples in order without a sampler."""


class LoaderBatches(Batches):
    """Batches through a DataLoader, decoded and transformed image by image."""

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Image.Image], torch.Tensor],
        order: _Order,
        *,
        mode: str = 'RGB',
        workers: int = 0,
        on_error: OnError = 'raise',
        pin_memory: bool = False,
    ) -> None:
        super().__init__(samples, order)
        self._on_error = on_error
        # Unreadable images come back as such in any case, and are raised here: an error in a worker process would
        # arrive with the worker's traceback as its message.
        dataset = SampleDataset(samples, transform, mode, 'skip' if on_error == 'raise' else on_error)
        # The loader must not refer back to this object: were its workers collected as part of a reference cycle,
        # their queues would be closed before they are told to stop, and each be waited for in vain.
        self._loader: DataLoader[Decoded | Unreadable] = DataLoader(
            dataset,
            batch_sampler=_KeyedIndices(order),
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(order.seed),  # leaves the caller's global generator alone
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch, unreadable in self._loader:
            if unreadable and self._on_error == 'raise':
                raise ImageReadError(unreadable[0].reason)
            for index, reason in unreadable:
                if index not in self.skipped:
                    _logger.warning('Skipped: %s', reason)
                self.skipped[index] = reason
            if batch is not None:
                yield batch


class _KeyedIndices:
    """Batch sampler that gives every drawn index a seed of its own for its transform."""

    def __init__(self, order: _Order) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for indices, random in self._order:
            yield list(zip(indices, random.integers(2**62, size=len(indices)).tolist(), strict=True))


def _collate(items: list[Decoded | Unreadable]) -> tuple[Batch | None, list[Unreadable]]:
    unreadable = [item for item in items if isinstance(item, Unreadable)]
    decoded = [item for item in items if isinstance(item, Decoded)]
    if not decoded:
        return None, unreadable
    images, *labels = zip(*decoded, strict=True)
    return Batch(torch.stack(images), *(torch.tensor(values) for values in labels)), unreadable


class MemoryBatches(Batches):
    """Batches of equally sized arrays, held in one tensor and transformed batch by batch."""

    def __init__(self, samples: Sequence[Sample], transform: TensorTransform, order: _Order) -> None:
        super().__init__(samples, order)
        shapes = {s.image.shape if isinstance(s.image, np.ndarray) else None for s in samples}
        if len(shapes) != 1 or None in shapes:
            raise ValueError(
                f'samples must be arrays of one shape for a TensorTransform, got {sorted(map(str, shapes))}; use '
                'train_transform or Preprocessing.transform, which read files and resize.'
            )
        self._transform = transform
        self._images = torch.from_numpy(np.stack([np.asarray(s.image) for s in samples]))
        self._identities = torch.tensor([s.identity for s in samples])
        self._cameras = torch.tensor([s.camera for s in samples])

    def __iter__(self) -> Iterator[Batch]:
        for chosen, random in self._order:
            indices = torch.tensor(chosen)
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            images = self._transform(self._images[indices], generator)
            yield Batch(images, self._identities[indices], self._cameras[indices], indices)


def batches(
    samples: Sequence[Sample],
    transform: Callable[[Image.Image], torch.Tensor] | TensorTransform,
    *,
    batch_size: int = 128,
    sampler: EpochSampler | None = None,
    seed: int = 0,
    mode: str = 'RGB',
    workers: int = 0,
    on_error: OnError = 'raise',
    pin_memory: bool = False,
) -> Batches:
    """Serves samples in batches: from memory when `transform` takes whole batches, else through a DataLoader.

    The batches of an epoch depend on (seed, sampler, epoch) alone, not on `workers`.

    Args:
        samples: What to serve, such as `data.training` or `data.gallery`.
        transform: A `TensorTransform`, or a map from a PIL image to a tensor (C, H, W); see `make_transforms`.
        batch_size: Samples of a batch, without a sampler.
        sampler: Draws the batches for training; None serves every sample once, in order.
        seed: Seed of the augmentation.
        mode: Mode of decoded images, 'RGB' or 'L' (from files only).
        workers: Worker processes (from files only).
        on_error: 'raise' stops at an unreadable image, 'skip' leaves it out and notes it in `skipped`.
        pin_memory: Whether to put batches in pinned memory (from files only).
    """
    if not samples:
        raise ValueError('samples must not be empty, got none to serve; give some.')
    order = _Order(len(samples), batch_size, sampler, seed)
    if isinstance(transform, TensorTransform):
        return MemoryBatches(samples, transform, order)
    return LoaderBatches(
        samples, transform, order, mode=mode, workers=workers, on_error=on_error, pin_memory=pin_memory
    )


def make_transforms(
    data: RetrievalData, preprocessing: Preprocessing, *, hflip: float | None = None, erase: float = 0.0
) -> tuple[ImageTransform | TensorTransform, ImageTransform | TensorTransform]:
    """Builds the usual (training, evaluation) transforms for a data set and a model's input.

    Arrays of the model's size are moved, turned and zoomed a little, in memory. In training, files of a data set with
    cameras are squashed to the size and cropped with padding, as in re-identification; others get random resized crops.

    Args:
        data: The data set.
        preprocessing: How images are prepared for evaluation; see `Preprocessing.suited`.
        hflip: Probability of a horizontal flip in training; by default 0 for arrays and 0.5 for files.
        erase: Probability of random erasing in training.
    """
    if fits_memory(data, preprocessing.input_size):
        mean, std = preprocessing.mean, preprocessing.std
        augment = TensorTransform(
            mean, std, shift=0.08, rotate=8.0, zoom=0.15, contrast=0.2, hflip=hflip or 0.0, erase=erase
        )
        return augment, TensorTransform(mean, std)
    crop: Literal['pad', 'resized'] = 'pad' if data.cameras else 'resized'
    train = train_transform(preprocessing, crop=crop, hflip=0.5 if hflip is None else hflip, erase=erase)
    return train, preprocessing.transform()


def fits_memory(data: RetrievalData, input_size: tuple[int, int, int]) -> bool:
    """Whether all images are arrays of the size a model takes, and can be served from memory as they are."""
    samples = (*data.train, *data.query, *data.gallery)
    return all(isinstance(s.image, np.ndarray) and s.image.shape[:2] == tuple(input_size[1:]) for s in samples)
