"""`images`: any folder of images that nobody labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._decode import load_image
from ._files import hash_order, require_images
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from pathlib import Path

TREE = '  ROOT/**/*.jpg, .png, ...'
_FEWEST = 10
_SIDE = 256  # of the test's views, which are kept in memory


@register_data('images')
def images(root: Path, *, kept_back: int = 500, seed: int = 0) -> RetrievalData:
    """Reads all images of a folder and its subfolders, for training without labels (`--recipe label-free`).

    Some are kept back, at most a fifth. Of each, its inner part, mirrored, is a query, and the whole is in the gallery:
    the test is whether an image that was not trained on is found again.

    Args:
        root: The folder.
        kept_back: Images of the test, at least 2.
        seed: Which they are.

    Raises:
        FileNotFoundError: There is no folder, or no image in it.
        ImageReadError: An image that is kept back is corrupt.
        ValueError: There are fewer than ten images, or `kept_back` is less than 2.
    """
    if kept_back < 2:
        raise ValueError(f'kept_back must be at least 2, got {kept_back}.')
    files = {file.relative_to(root).as_posix(): file for file in require_images(root, TREE, recursive=True)}
    if len(files) < _FEWEST:
        raise ValueError(f'{root} must hold at least {_FEWEST} images to learn from and to test on, got {len(files)}.')
    order = hash_order(files, seed)
    count = min(kept_back, len(files) // 5)
    views = [_views(files[name]) for name in order[:count]]
    return RetrievalData(
        root.resolve().name,
        [Sample(files[name], 0) for name in sorted(order[count:])],
        [Sample(inner, number) for number, (inner, _) in enumerate(views, start=1)],
        [Sample(whole, number) for number, (_, whole) in enumerate(views, start=1)],
        cameras=False,
    )


def _views(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image without its outer sixth on each side, mirrored, and the whole, both small."""
    image = load_image(file)
    image.thumbnail((_SIDE, _SIDE))
    whole = np.asarray(image)
    top, left = whole.shape[0] // 6, whole.shape[1] // 6
    inner = whole[top : whole.shape[0] - top, left : whole.shape[1] - left]
    return np.ascontiguousarray(inner[:, ::-1]), whole
