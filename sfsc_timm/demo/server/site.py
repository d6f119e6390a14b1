"""All that the page and its server need, as one value, and as a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ['CONFIG', 'EMBEDDINGS', 'ITEMS', 'Site', 'read_site']

CONFIG, ITEMS, EMBEDDINGS = 'site.json', 'items.json', 'embeddings.npy'  # in the folder


@dataclass(frozen=True, eq=False)
class Site:
    """All that the page and its server need.

    Attributes:
        config: What the page is told, see `sfsc_timm.demo.make_site`.
        embeddings: Of the gallery, of length 1, float32 of shape (N, D).
        images: File of each item, in the same order.
        labels: Name of each item, for people.
        examples: Files that visitors can try.
        page: Folder of the page.
        runtime: Folder of onnxruntime-web's files.
        models: File of each exported width: the browser's, and those that run on the server.
    """

    config: Mapping[str, Any]
    embeddings: NDArray[np.float32]
    images: Sequence[Path]
    labels: Sequence[str]
    examples: Sequence[Path]
    page: Path
    runtime: Path
    models: Mapping[float, Path]


def read_site(folder: Path) -> Site:
    """Reads what `sfsc_timm.demo.write_space` has written; the embeddings stay in their file.

    Raises:
        FileNotFoundError: A part of it is missing.
    """
    config, items = (json.loads((folder / name).read_text(encoding='utf-8')) for name in (CONFIG, ITEMS))
    widths = [config['browser']['width'], *(one['width'] for one in config['server'])]
    return Site(
        config,
        np.load(folder / EMBEDDINGS, mmap_mode='r', allow_pickle=False),
        [folder / name for name in items['images']],
        items['labels'],
        [folder / name for name in items['examples']],
        folder / 'page',
        folder / 'runtime',
        {width: folder / 'models' / f'{width:g}.onnx' for width in widths},
    )
