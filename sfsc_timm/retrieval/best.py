"""The best of scores that come a part at a time, and scores of a few candidates of each query."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..evaluation.scores import Distance

__all__ = ['Best', 'rescored']

_NUMBERS = 1 << 24  # of candidates' embeddings at a time, 64 MiB


class Best:
    """The k largest scores of each query so far.

    Args:
        queries: How many.
        k: How many scores of each.
    """

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._values, self._items = torch.empty(queries, 0), torch.empty(queries, 0, dtype=torch.int64)

    def add(self, values: Tensor, items: Tensor) -> None:
        """Takes in scores and items of every query, `(Nq, n)` each."""
        self._values, self._items = torch.cat([self._values, values], 1), torch.cat([self._items, items], 1)
        self._values, chosen = self._values.topk(min(self._k, self._values.shape[1]), 1)
        self._items = self._items.gather(1, chosen)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores and items `(Nq, k)`, descending, those of equal score by item."""
        items, order = self._items.sort(dim=1)
        values, order = self._values.gather(1, order).sort(dim=1, descending=True, stable=True)
        return values, items.gather(1, order)


def rescored(
    query: Tensor, rows: Callable[[Tensor], Tensor], candidates: Tensor, k: int, distance: Distance
) -> tuple[Tensor, Tensor]:
    """The best of the candidates of each query by their full embeddings.

    Args:
        query: Query embeddings, shape `(Nq, D)`.
        rows: Gives the embeddings `(n, D)` of items `(n,)`.
        candidates: Items of each query, `(Nq, S)`.
        k: How many, at most S.
        distance: 'cosine' or 'euclidean'.

    Returns:
        Scores and items `(Nq, k)`, as `search` does.
    """
    best = Best(len(query), k)
    size = max(1, _NUMBERS // (candidates.shape[1] * query.shape[1]))
    found = []
    for some, items in zip(query.float().split(size), candidates.split(size), strict=True):
        embeddings = rows(items.flatten()).float().view(*items.shape, -1)
        if distance == 'cosine':
            products = torch.bmm(embeddings, normalize(some, dim=1)[:, :, None])[:, :, 0]
            found.append(products / torch.linalg.vector_norm(embeddings, dim=2).clamp_(min=1e-12))
        else:
            found.append(-torch.linalg.vector_norm(embeddings - some[:, None], dim=2))
    best.add(torch.cat(found), candidates)
    return best.result()
