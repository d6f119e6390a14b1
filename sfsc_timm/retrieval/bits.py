"""Embeddings as one bit of each dimension, compared by how many bits differ."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

__all__ = ['HammingScan', 'pack_signs']

_TILE = 1 << 15  # items at a time, whose differences stay in the processor's cache


def pack_signs(embeddings: Tensor) -> Tensor:
    """Which numbers are above 0, eight in a byte, the first in its highest bit.

    Args:
        embeddings: Shape `(N, D)`.

    Returns:
        uint8 `(N, D / 8)`, rounded up; what is left over of the last byte is 0.
    """
    return torch.from_numpy(np.packbits((embeddings > 0).cpu().numpy(), axis=1))


class HammingScan:
    """Bits of all items, in memory.

    Args:
        bits: Of `pack_signs`, shape `(N, D / 8)`.
    """

    def __init__(self, bits: Tensor) -> None:
        # A column of 64 bits each, so that one instruction compares many items.
        self.count = len(bits)
        self._columns = np.ascontiguousarray(_words(bits).T)

    @classmethod
    def of_embeddings(cls, embeddings: Tensor) -> HammingScan:
        """The signs of embeddings `(N, D)`."""
        parts = [pack_signs(part) for part in embeddings.split(1 << 16)]
        return cls(torch.cat(parts))

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return int(self._columns.nbytes)

    def shortlist(self, query: Tensor, size: int) -> Tensor:
        """The items of which the fewest bits differ from those of each query's signs; of equal ones, the first.

        Args:
            query: Query embeddings, shape `(Nq, D)`.
            size: How many items, at most N.

        Returns:
            Items `(Nq, size)`, in their order in the gallery.
        """
        words = _words(pack_signs(query))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = list(pool.map(lambda row: self._nearest(row, size), words))
        return torch.from_numpy(np.stack(found))

    def _nearest(self, query: np.ndarray, size: int) -> np.ndarray:
        differing = np.empty(self.count, dtype=np.uint16)
        for begin in range(0, self.count, _TILE):
            tile = self._columns[:, begin : begin + _TILE]
            part = differing[begin : begin + _TILE]
            part[:] = _count(tile[0] ^ query[0])
            for column, word in zip(tile[1:], query[1:], strict=True):
                part += _count(column ^ word)
        # There are few different counts: how many items have each tells up to which all are taken.
        upto = int(np.searchsorted(np.bincount(differing).cumsum(), size))
        sure = np.flatnonzero(differing < upto)
        last = np.flatnonzero(differing == upto)[: size - len(sure)]
        return np.sort(np.concatenate([sure, last]))


def _words(bits: Tensor) -> np.ndarray:
    """Bytes in rows as words of 64 bits, with zeros after the last."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : bits.shape[1]] = bits.cpu().numpy()
    return padded.view(np.uint64)


def _by_table(words: np.ndarray) -> np.ndarray:
    """How many bits of each word are set, without numpy 2."""
    table = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, dtype=np.uint8)
    return table[words.view(np.uint16)].reshape(*words.shape, 4).sum(-1, dtype=np.uint8)


_count: Callable[[np.ndarray], np.ndarray] = getattr(np, 'bitwise_count', _by_table)
