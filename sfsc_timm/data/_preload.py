"""Small data sets decoded once and kept in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ._decode import load_image

if TYPE_CHECKING:
    from ._types import RetrievalData, Sample


def preload(data: RetrievalData, size: tuple[int, int]) -> RetrievalData:
    """Decodes all images into arrays of one size, which `batches` then serves from memory.

    For data sets of some ten thousand small images, such as `emoji`, an epoch then costs no decoding. Images take
    3 H W bytes each and lose their aspect ratio.

    Args:
        data: The data set.
        size: (H, W) of the arrays, the model's input size.

    Raises:
        ImageReadError: An image is missing, corrupt or truncated.
    """
    from PIL import Image

    arrays: dict[int, np.ndarray] = {}  # an image may be in several lists

    def decode(sample: Sample) -> Sample:
        key = id(sample.image)
        if key not in arrays:
            image = load_image(sample.image)
            if image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BICUBIC)
            arrays[key] = np.asarray(image)
        return replace(sample, image=arrays[key])

    query = tuple(map(decode, data.query))
    gallery = query if data.shared else tuple(map(decode, data.gallery))
    return replace(data, train=tuple(map(decode, data.train)), query=query, gallery=gallery)
