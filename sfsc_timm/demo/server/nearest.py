"""Exact search in a gallery that lies in memory or in a mapped file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .refusal import Refusal

__all__ = ['Nearest', 'Read', 'normalised', 'read_embedding']

_TILE = 1 << 16  # items whose scores are held at a time

Floats = NDArray[np.float32]
Read = Callable[[], bytes]
"""Reads the body of a request."""


class Nearest:
    """The k nearest items of a query, by cosine similarity.

    Args:
        gallery: Embeddings of length 1, float32 of shape (N, D), N at least 1.
    """

    def __init__(self, gallery: Floats) -> None:
        self._gallery = gallery

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def embed_dim(self) -> int:
        """Numbers per embedding."""
        return int(self._gallery.shape[1])

    def search(self, query: Floats, k: int) -> tuple[list[int], list[float]]:
        """Finds the nearest items.

        Args:
            query: One embedding (D,), not zero.
            k: How many; fewer are found in a smaller gallery.

        Returns:
            Items and scores, best first; items of equal score in the order of the gallery.
        """
        query = normalised(query[None])[0]
        scores, items = np.empty(0, np.float32), np.empty(0, np.int64)
        for begin in range(0, len(self._gallery), _TILE):
            found = np.asarray(self._gallery[begin : begin + _TILE]) @ query
            best = _largest(found, k)
            scores, items = np.concatenate([scores, found[best]]), np.concatenate([items, best + begin])
            order = np.lexsort((items, -scores))[:k]
            scores, items = scores[order], items[order]
        return items.tolist(), scores.tolist()


def _largest(scores: Floats, k: int) -> NDArray[np.int64]:
    if k >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, -k)[-k]
    # Of those that equal the least, the first ones.
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.concatenate([above, equal[: k - len(above)]])


def normalised(embeddings: Floats) -> Floats:
    """Embeddings (N, D) at length 1; those of length 0 stay."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return (embeddings / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def read_embedding(length: int, read: Read, size: int) -> Floats:
    """The numbers that a browser sent, float32, little-endian.

    Args:
        length: Bytes of the body, as announced.
        read: Reads them.
        size: Numbers per embedding.

    Raises:
        Refusal: They are not an embedding of that size.
    """
    if length != 4 * size:
        raise Refusal(400, f'An embedding must be {size} numbers of 4 bytes, got {length} bytes; load the page again.')
    values = np.frombuffer(read(), '<f4').astype(np.float32)
    if not np.isfinite(values).all() or not values.any():
        raise Refusal(400, 'An embedding must be finite numbers, not all of them zero; try another picture.')
    return values
