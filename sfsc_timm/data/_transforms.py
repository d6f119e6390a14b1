"""Preprocessing and augmentation: of PIL images one by one, or of whole uint8 batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

if TYPE_CHECKING:
    from ._preprocessing import ImageTransform, Preprocessing


def train_transform(
    preprocessing: Preprocessing,
    *,
    crop: Literal['resized', 'pad'] = 'resized',
    scale: tuple[float, float] = (0.2, 1.0),
    padding: int = 10,
    hflip: float = 0.5,
    color_jitter: float = 0.0,
    auto_augment: str | None = None,
    erase: float = 0.0,
) -> ImageTransform:
    """Builds the training transform of PIL images.

    Args:
        preprocessing: The input that the model takes; how it is cropped in evaluation has no say.
        crop: 'resized' is the random resized crop of classification and of CUB, SOP, In-shop; 'pad' is person and
            vehicle re-identification's: resize without keeping the aspect ratio, pad, crop at random.
        scale: Least and greatest share of the area that a resized crop keeps.
        padding: Pixels added on each side before a 'pad' crop.
        hflip: Probability of a horizontal flip, in [0, 1]; 0 for images such as text.
        color_jitter: Strength of timm's colour jitter ('resized' only).
        auto_augment: timm's policy, such as 'rand-m9-mstd0.5' ('resized' only).
        erase: Probability of random erasing, in [0, 1].

    Returns:
        A transform of a PIL image to a float tensor (C, H, W).

    Raises:
        ValueError: A probability is out of range, or the crop is unknown.
    """
    _check_probabilities(hflip=hflip, erase=erase)
    if crop == 'pad':
        return _pad_crop(preprocessing, padding=padding, hflip=hflip, erase=erase)
    if crop != 'resized':
        raise ValueError(f"crop must be 'resized' or 'pad', got {crop!r}.")
    from timm.data.transforms_factory import create_transform

    transform: ImageTransform = create_transform(
        preprocessing.input_size,
        is_training=True,
        mean=preprocessing.mean,
        std=preprocessing.std,
        scale=scale,
        hflip=hflip,
        color_jitter=color_jitter,
        auto_augment=auto_augment,
        re_prob=erase,
        interpolation=preprocessing.interpolation,
    )
    return transform


def _pad_crop(preprocessing: Preprocessing, *, padding: int, hflip: float, erase: float) -> ImageTransform:
    from timm.data.transforms import str_to_interp_mode
    from torchvision import transforms as tv

    size, mean = preprocessing.input_size[1:], preprocessing.mean
    fill = tuple(round(255 * m) for m in mean) if len(mean) > 1 else round(255 * mean[0])
    transform: ImageTransform = tv.Compose(
        [
            tv.Resize(size, str_to_interp_mode(preprocessing.interpolation)),
            tv.RandomHorizontalFlip(hflip),
            tv.RandomCrop(size, padding, fill=fill),
            tv.ToTensor(),
            tv.Normalize(mean, preprocessing.std),
            tv.RandomErasing(erase),
        ]
    )
    return transform


def _check_probabilities(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f'{name} must be a probability in [0, 1], got {value}')


@dataclass(frozen=True)
class TensorTransform:
    """Normalises, and if asked augments, a whole uint8 batch at once: much faster for small images than one by one.

    Every image is moved, turned and zoomed by its own random affine map, with its border repeated outwards. With the
    defaults nothing is random, which is the evaluation transform.

    Attributes:
        mean: Mean of each output channel, in [0, 1]; one value for a model with one input channel.
        std: Standard deviation of each output channel, in [0, 1].
        shift: Greatest shift along each axis, as a share of the side.
        rotate: Greatest rotation either way, in degrees.
        zoom: Greatest change of scale: factors between 1 / (1 + zoom) and 1 + zoom.
        contrast: Greatest change of contrast and of brightness, as a share of the full range.
        hflip: Probability of a horizontal flip.
        erase: Probability that a random rectangle of 2 % to 20 % of the area is set to the mean.
    """

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    contrast: float = 0.0
    hflip: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in {1, 3}:
            raise ValueError(f'mean and std must both have 1 or 3 values, got {self.mean} and {self.std}.')
        for name in ('shift', 'rotate', 'zoom', 'contrast', 'hflip', 'erase'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name} must be at least 0, got {getattr(self, name)}.')
        _check_probabilities(hflip=self.hflip, erase=self.erase)

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Transforms a batch.

        Args:
            images: uint8 of shape (B, H, W) or (B, H, W, 3).
            generator: Source of the random draws.

        Returns:
            Float32 of shape (B, C, H, W), C being the length of `mean`.
        """
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        x = x.float() / 255
        if len(self.mean) == 1 and x.shape[1] == 3:
            # ITU-R 601 luma, as PIL converts to 'L'.
            x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if self.shift or self.rotate or self.zoom or self.hflip:
            grid = F.affine_grid(self._affine(x, generator), list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, padding_mode='border', align_corners=False)
        if self.contrast:
            gain, offset = self.contrast * (2 * torch.rand(2, len(x), 1, 1, 1, generator=generator) - 1)
            x = ((x - 0.5) * (1 + gain) + 0.5 + offset / 2).clamp(0, 1)
        x = (x - x.new_tensor(self.mean).view(1, -1, 1, 1)) / x.new_tensor(self.std).view(1, -1, 1, 1)
        return self._erased(x, generator) if self.erase else x

    def _affine(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Returns a map from output to input coordinates for each image, (B, 2, 3)."""
        batch, _, height, width = x.shape
        turn, zoom, right, down = 2 * torch.rand(4, batch, generator=generator) - 1
        angle = turn * math.radians(self.rotate)
        scale = (1 + self.zoom) ** zoom
        cos, sin = angle.cos() * scale, angle.sin() * scale
        mirror = 1 - 2 * (torch.rand(batch, generator=generator) < self.hflip).float()
        # affine_grid's coordinates are shares of each side: a rotation of a non-square image needs their ratio.
        first = torch.stack([cos * mirror, -sin * height / width, 2 * self.shift * right], 1)
        second = torch.stack([sin * mirror * width / height, cos, 2 * self.shift * down], 1)
        return torch.stack([first, second], 1)

    def _erased(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        batch, _, height, width = x.shape
        hit, area, aspect, top, left = torch.rand(5, batch, 1, 1, generator=generator)
        area = 0.02 + 0.18 * area
        ratio = torch.exp((2 * aspect - 1) * math.log(3.0))
        tall, wide = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        rows = (torch.arange(height) + 0.5).view(1, -1, 1) / height - top * (1 - tall)
        columns = (torch.arange(width) + 0.5).view(1, 1, -1) / width - left * (1 - wide)
        box = (rows >= 0) & (rows < tall) & (columns >= 0) & (columns < wide) & (hit < self.erase)
        return x.masked_fill(box.unsqueeze(1), 0.0)
