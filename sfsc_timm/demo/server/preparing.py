"""From pixels to the input of a model, as a preprocessing.json says it: NumPy and Pillow only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ['image_mode', 'prepare', 'resized_size']

_FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'box': Image.Resampling.BOX,
    'hamming': Image.Resampling.HAMMING,
    'lanczos': Image.Resampling.LANCZOS,
}


def image_mode(preprocessing: Mapping[str, Any]) -> str:
    """Pillow's mode in which pictures are decoded: 'L' or 'RGB'."""
    return str(preprocessing['input']['channels'])


def prepare(image: Image.Image, preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """Makes the input of a model.

    Args:
        image: Decoded in the mode of `image_mode`.
        preprocessing: Content of the preprocessing.json beside an exported model.

    Returns:
        Values (1, C, H, W).
    """
    step: dict[str, Any] = {name: value for one in preprocessing['steps'] for name, value in one.items()}
    resize, crop = step['resize'], step['crop']
    size = resized_size(image.size, resize)
    if size != image.size:
        image = image.resize(size, _FILTERS[resize['interpolation']])
    image = _cropped(image, crop['size'], crop.get('pad_with'))
    values = np.asarray(image, np.float32).reshape(image.height, image.width, -1) / np.float32(255)
    mean, std = (np.asarray(step['normalise'][name], np.float32) for name in ('mean', 'std'))
    return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1)[None])


def resized_size(size: tuple[int, int], resize: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height after the resize, of width and height before."""
    width, height = size
    if 'size' in resize:
        return resize['size'][1], resize['size'][0]
    if 'shorter_side' in resize:
        side = resize['shorter_side']
        return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    target = resize.get('fit_inside') or resize['cover']
    ratios = height / target[0], width / target[1]
    ratio = max(ratios) if 'fit_inside' in resize else min(ratios)
    return round(width / ratio), round(height / ratio)


def _cropped(image: Image.Image, size: tuple[int, int], fill: list[int] | None) -> Image.Image:
    """Cuts out the centre; what lies beyond the image is of the colour `fill`, black without one."""
    height, width = size
    # Padding comes first, and an odd pixel of it goes to the right and the bottom.
    left, top = (
        -((wanted - found) // 2) if wanted > found else round((found - wanted) / 2)
        for wanted, found in ((width, image.width), (height, image.height))
    )
    colour: Any = 0 if fill is None else fill[0] if image.mode == 'L' else tuple(fill)
    result = Image.new(image.mode, (width, height), colour)
    result.paste(image, (-left, -top))
    return result
