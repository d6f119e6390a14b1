"""Several images of one query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import normalize

from ..evaluation.scores import Distance
from .blockwise import Ranking

__all__ = ['Fusion', 'best_of', 'check_fusion', 'mean_of']

Fusion = Literal['mean', 'best']


def check_fusion(fusion: str) -> None:
    """Refuses what is none.

    Raises:
        ValueError: With those that there are.
    """
    if fusion not in get_args(Fusion):
        raise ValueError(f'fuse must be one of {get_args(Fusion)}, got {fusion!r}')


def mean_of(query: Tensor, distance: Distance = 'cosine') -> Tensor:
    """One embedding of several images: their mean, for 'cosine' of directions, so that each counts as much.

    Args:
        query: Shape `(N, D)`, N at least 1.
        distance: By which it will be compared.

    Returns:
        Shape `(1, D)`.
    """
    embeddings = query.float()
    return (normalize(embeddings, dim=1) if distance == 'cosine' else embeddings).mean(0, keepdim=True)


def best_of(rankings: Sequence[Ranking], k: int) -> Ranking:
    """One ranking of several images: each item by its best score among them.

    The k best are exactly those of all items if each ranking holds its own k best.

    Args:
        rankings: Paths and scores by image.
        k: How many items, at least 1.
    """
    best: dict[str, float] = {}
    for ranking in rankings:
        for path, score in ranking:
            best[path] = max(score, best.get(path, score))
    return sorted(best.items(), key=lambda item: -item[1])[:k]
