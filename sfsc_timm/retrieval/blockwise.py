"""Exact search of a gallery that is read in blocks: memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..evaluation.scores import Distance
from .search import search

__all__ = ['Ranking', 'search_blocks']

Ranking = list[tuple[str, float]]


def search_blocks(
    query: Tensor, blocks: Iterable[tuple[Sequence[str], Tensor]], k: int, distance: Distance = 'cosine'
) -> list[Ranking]:
    """Paths and scores of the k nearest items of each query, best first, those of equal score in the blocks' order.

    Args:
        query: Query embeddings, shape `(Nq, D)`.
        blocks: Paths and embeddings `(n, D)`, read once, one block at a time.
        k: How many items, at least 1; fewer come where there are fewer.
        distance: 'cosine' or 'euclidean'.

    Raises:
        ValueError: Embeddings that do not fit each other, or k out of range.
    """
    if k < 1:
        raise ValueError(f'k must be at least 1, got {k}.')
    values = torch.empty(len(query), 0)
    items = torch.empty(len(query), 0, dtype=torch.int64)
    names: dict[int, str] = {}
    begin = 0
    for paths, embeddings in blocks:
        if not len(paths):
            continue
        found, places = search(query, embeddings, min(k, len(paths)), distance=distance)
        values, items = torch.cat([values, found], 1), torch.cat([items, places + begin], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        values, items = values.gather(1, order), items.gather(1, order)
        kept = set(items.unique().tolist())
        names = {item: names[item] if item < begin else paths[item - begin] for item in kept}
        begin += len(paths)
    return [
        [(names[item], score) for item, score in zip(row, scores, strict=True)]
        for row, scores in zip(items.tolist(), values.tolist(), strict=True)
    ]
