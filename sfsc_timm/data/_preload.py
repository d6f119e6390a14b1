"""Small data sets decoded once and kept in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ._images import load_image

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

    def decode(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        decoded = []
        for sample in samples:
            image = load_image(sample.image)
            if image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BICUBIC)
            decoded.append(replace(sample, image=np.asarray(image)))
        return tuple(decoded)

    query = decode(tuple(data.query))
    gallery = query if data.shared else decode(tuple(data.gallery))
    return replace(data, train=decode(tuple(data.train)), query=query, gallery=gallery)
