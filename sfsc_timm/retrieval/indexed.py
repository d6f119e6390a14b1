"""The FAISS index that a gallery keeps of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from .._files import write_json
from ..evaluation.scores import Distance
from .faiss import FaissIndex
from .gallery import Gallery
from .shards import digest_of

__all__ = ['indexed']


def indexed(gallery: Gallery, distance: Distance = 'cosine') -> FaissIndex:
    """The index of a gallery as it is now: read from its folder, or built and written there.

    A note beside the index says of which content it was built, and its SHA-256. An index of another content (also of a
    gallery of the same size), a damaged one and one without a note are not read but built again: FAISS believes what it
    reads.

    Args:
        gallery: The gallery, not empty.
        distance: 'cosine' or 'euclidean'.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: The gallery is empty, or no such distance.
    """
    if distance not in get_args(Distance):
        raise ValueError(f'distance must be one of {get_args(Distance)}, got {distance!r}.')
    file = gallery.folder / f'{distance}-{len(gallery)}.faiss'
    note = file.with_suffix('.json')
    if _is_of(file, note, gallery):
        return FaissIndex.load(file)
    index = FaissIndex(gallery.embeddings(), distance)
    note.unlink(missing_ok=True)  # so that at no time it speaks of another file
    index.save(file)
    write_json(note, {'gallery': gallery.content_id, 'sha256': digest_of(file)})
    for old in gallery.folder.glob(f'{distance}-*'):
        if old.suffix in {'.faiss', '.json'} and old not in (file, note):
            old.unlink(missing_ok=True)
    return index


def _is_of(file: Path, note: Path, gallery: Gallery) -> bool:
    if not file.is_file():
        return False
    try:
        declared: Any = json.loads(note.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return False
    return declared == {'gallery': gallery.content_id, 'sha256': digest_of(file)}
