"""Images that tell int8 the ranges of activations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import serve

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoints import Checkpoint
    from ..data import RetrievalData, Sample


def range_images(
    checkpoint: Checkpoint, folder: Path | None, data: RetrievalData | None, count: int, args: argparse.Namespace
) -> list[Tensor]:
    """Images spread evenly over a folder, or over the training images of a data set, as the model takes them.

    Args:
        checkpoint: Says how they are prepared.
        folder: With images in it or in its subfolders; None for those of `data`.
        data: The data set.
        count: How many, at most.
        args: Arguments of `add_checkpoint_arguments`.

    Returns:
        Batches (B, C, H, W).

    Raises:
        ValueError: None can be read.
    """
    from ..data import Sample
    from ..data._files import require_images
    from ..export import first_images

    samples: Sequence[Sample]
    if data is None or folder is not None:
        files = require_images(Path(folder or '.'), '  DIR/**/*.jpg, .png, ...', recursive=True)
        samples, data = [Sample(file, 0) for file in files], None
    else:
        samples = data.train or data.gallery
    chosen = samples[:: max(1, len(samples) // count)][:count]
    images = first_images((batch.images for batch in serve(checkpoint, chosen, args, data)), count)
    if not images:
        raise ValueError(f'int8 needs images that can be read, got none of {len(samples)}; name another --int8-images')
    return images
