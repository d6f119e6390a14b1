"""Exact search among int8 codes, in tiles that stay in the processor's cache."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..evaluation.scores import Distance, check_embeddings
from ..evaluation.select import GROUP, select
from .best import Best, rescored
from .info import CODES, GalleryInfo
from .scales import Scales

__all__ = ['CodeScan', 'encoded']

_BEYOND = 0.001  # share of numbers beyond the range from which on it is said
_TILE = 1 << 16  # items between two selections
_BLOCK = 1 << 12  # items that become floats at a time


def encoded(embeddings: Tensor, info: GalleryInfo, scales: Scales | None, where: str) -> tuple[Tensor, Scales | None]:
    """Embeddings as a gallery stores them, and its scales, which the first embeddings of a gallery of codes give it.

    Args:
        embeddings: Shape `(N, D)`.
        info: What the gallery holds.
        scales: The gallery's; None if it has none yet.
        where: The gallery is, for a warning about numbers beyond the range.
    """
    if info.dtype not in CODES:
        return embeddings.contiguous(), None
    scales = scales or Scales.fit(embeddings)
    codes, beyond = scales.encode(embeddings)
    if beyond > _BEYOND * codes.numel():
        warnings.warn(
            f'{beyond / codes.numel():.1%} of the numbers of {len(codes)} embeddings lie beyond the range of '
            f'{where!r}, '
            'which its first images gave it, and became its end; index all images into another folder if they are '
            'unlike the first',
            stacklevel=3,
        )
    return codes, scales


class CodeScan:
    """Codes of all items, in memory, compared with queries as the embeddings that they stand for.

    The scales go to the queries: a product with codes is one with embeddings.

    Args:
        codes: int8 `(N, D)`, N at least 1.
        scales: Theirs.
    """

    def __init__(self, codes: Tensor, scales: Scales) -> None:
        self.codes, self._scales = codes, scales.tensor
        self.count, self.dim = codes.shape
        parts = [(part * self._scales).square_().sum(1) for part in codes.split(_BLOCK)]
        self._squares = torch.cat(parts)

    def first(self, size: int) -> CodeScan:
        """The same items by their first numbers.

        Raises:
            ValueError: There are not so many.
        """
        if size > self.dim:
            raise ValueError(f'shortlist must be by at most {self.dim} numbers, which the gallery has, got {size}')
        values = tuple(self._scales[:size].tolist())
        return CodeScan(self.codes[:, :size].contiguous(), Scales(values))

    def rows(self, items: Tensor) -> Tensor:
        """Embeddings `(n, D)` of items `(n,)`."""
        return self.codes[items] * self._scales

    def search(self, query: Tensor, k: int, distance: Distance = 'cosine') -> tuple[Tensor, Tensor]:
        """Scores and items `(Nq, k)` of the nearest, as `retrieval.search` gives them of the decoded embeddings."""
        check_embeddings(query, 'query', len(query), self.dim)
        if not 1 <= k <= self.count:
            raise ValueError(f'k must be between 1 and the size of the gallery, {self.count}; got {k}.')
        query = query.detach().cpu().float()
        rows = (normalize(query, dim=1) if distance == 'cosine' else query) * self._scales
        best = Best(len(query), k)
        for begin in range(0, self.count, _TILE):
            scores = self._products(rows, begin, min(_TILE, self.count - begin))
            squares = self._squares[begin : begin + _TILE]
            length = len(squares)
            if distance == 'cosine':
                scores[:, :length] *= squares.clamp(min=1e-24).rsqrt()
            else:
                scores[:, :length] -= squares / 2
            scores[:, length:] = -torch.inf
            values, items = select(scores, min(k, length))
            best.add(values, items + begin)
        values, items = best.result()
        if distance == 'euclidean':
            return rescored(query, self.rows, items, k, distance)
        return values, items

    def _products(self, rows: Tensor, begin: int, length: int) -> Tensor:
        """Of queries and a tile of codes, `(Nq, P)`; P is the length rounded up to a multiple of the groups."""
        result = torch.empty(len(rows), -(-length // GROUP) * GROUP)
        block = torch.empty(min(_BLOCK, length), self.dim)
        for first in range(0, length, _BLOCK):
            part = self.codes[begin + first : begin + min(first + _BLOCK, length)]
            floats = block[: len(part)].copy_(part)
            torch.mm(rows, floats.T, out=result[:, first : first + len(part)])
        return result
