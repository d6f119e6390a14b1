"""Search in two steps: by a short code among all items, then among the nearest of these by the full embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..evaluation.scores import Distance
from .best import rescored
from .bits import HammingScan
from .search import search

__all__ = ['Funnel', 'Scan', 'Shortlist', 'recall_of']

Scan = Callable[[Tensor, int, Distance], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shortlist:
    """Which items are compared by their full embeddings.

    Attributes:
        size: How many of each query.
        by: 'binary', the signs of the embeddings, or how many of their first numbers; those must be an embedding of
            their own, as `embed_dims` of a model makes them.
    """

    size: int
    by: int | Literal['binary'] = 'binary'

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f'shortlist must be a whole number of items, at least 1, got {self.size!r}')
        if self.by != 'binary' and (isinstance(self.by, bool) or not isinstance(self.by, int) or self.by < 1):
            raise ValueError(f"shortlist must be by 'binary' or by a number of first numbers, got {self.by!r}")


class Funnel:
    """A gallery that is searched in two steps.

    Args:
        nearest: The first step: items `(Nq, n)` of queries and n, in any order.
        rows: Embeddings `(n, D)` of items.
        size: How many items the first step gives.
        count: How many items there are.
    """

    def __init__(
        self,
        nearest: Callable[[Tensor, int, Distance], Tensor],
        rows: Callable[[Tensor], Tensor],
        size: int,
        count: int,
    ) -> None:
        self._nearest, self._rows = nearest, rows
        self._size, self._count = size, count

    @classmethod
    def of_embeddings(cls, embeddings: Tensor, shortlist: Shortlist) -> Funnel:
        """That of embeddings in memory.

        Raises:
            ValueError: The shortlist is by more numbers than there are.
        """
        count, dim = embeddings.shape
        by = shortlist.by
        if by == 'binary':
            scan = HammingScan.of_embeddings(embeddings)
            return cls(
                lambda query, size, _: scan.shortlist(query, size), embeddings.__getitem__, shortlist.size, count
            )
        if by > dim:
            raise ValueError(f'shortlist must be by at most {dim} numbers, which the gallery has, got {by}')
        short = embeddings[:, :by].float()
        return cls(
            lambda query, size, distance: search(query[:, :by], short, size, distance=distance)[1],
            embeddings.__getitem__, shortlist.size, count,
        )  # fmt: skip

    def search(self, query: Tensor, k: int, distance: Distance = 'cosine') -> tuple[Tensor, Tensor]:
        """Scores and items `(Nq, k)` as `retrieval.search` gives them; at least k items are compared in full."""
        if not 1 <= k <= self._count:
            raise ValueError(f'k must be between 1 and the size of the gallery, {self._count}; got {k}.')
        size = min(self._count, max(self._size, k))
        return rescored(query, self._rows, self._nearest(query, size, distance), k, distance)


def recall_of(found: Sequence[Sequence[tuple[str, float]]], exact: Sequence[Sequence[tuple[str, float]]]) -> float:
    """Share of the items of exact rankings that were found, of all queries together, in [0, 1].

    Args:
        found: Paths and scores of the matches of each query.
        exact: The same by an exact search.
    """
    pairs = [({path for path, _ in some}, {path for path, _ in all_}) for some, all_ in zip(found, exact, strict=True)]
    return sum(len(some & all_) for some, all_ in pairs) / max(1, sum(len(all_) for _, all_ in pairs))
