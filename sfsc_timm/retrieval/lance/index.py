"""The approximate index of a Lance table, and search in it: full embeddings always refine its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from torch import Tensor

from ...evaluation.scores import check_embeddings
from ..blockwise import Ranking

__all__ = ['ANN_KINDS', 'Ann', 'AnnKind', 'nearest']

AnnKind = Literal['auto', 'flat', 'ivf_pq', 'ivf_hnsw_sq']
ANN_KINDS: tuple[AnnKind, ...] = get_args(AnnKind)
_QUERIES = 256  # searched at a time


@dataclass(frozen=True)
class Ann:
    """How an approximate index is searched, and what was measured of it.

    Attributes:
        kind: 'ivf_pq' or 'ivf_hnsw_sq'.
        partitions: Into how many parts the items are split.
        probes: How many of them a query looks into.
        refine: For k items, `refine * k` candidates are compared by their full embeddings.
        rows: Items that it was built of.
        recall: Share of the exact 10 nearest that it found, on a sample.
    """

    kind: str
    partitions: int
    probes: int
    refine: int
    rows: int
    recall: float = 0.0

    def __post_init__(self) -> None:
        for name in ('partitions', 'probes', 'refine'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} of an index must be a whole number of at least 1, got {value!r}')

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ann:
        """Reads what `to_dict` gives.

        Raises:
            ValueError: An entry is missing, unknown or wrong.
        """
        if set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f'the note of an index must have other entries, got {sorted(values)}; build it again')
        return cls(**values)


def nearest(table: Any, column: str, query: Tensor, k: int, ann: Ann, condition: str | None = None) -> list[Ranking]:
    """Keys and cosine similarities of about the k nearest items of each query, best first.

    Args:
        table: Of LanceDB, with an index; rows that came after it are compared one by one.
        column: The embeddings'.
        query: Shape `(Nq, D)`.
        k: How many items, at least 1.
        ann: How to search it.
        condition: Only among rows of this SQL condition.

    Raises:
        ValueError: Bad embeddings or k.
    """
    check_embeddings(query, 'query', len(query))
    if k < 1:
        raise ValueError(f'k must be at least 1, got {k}.')
    found: list[Ranking] = []
    for part in query.detach().cpu().float().split(_QUERIES):
        search = table.search(part.numpy(), vector_column_name=column, query_type='vector').distance_type('cosine')
        search = search.nprobes(ann.probes).refine_factor(ann.refine).limit(k).select(['path', '_distance'])
        if ann.kind == 'ivf_hnsw_sq':
            search = search.ef(2 * k * ann.refine)
        if condition is not None:
            search = search.where(condition)
        found += _rankings(search.to_arrow(), len(part))
    return found


def _rankings(rows: Any, queries: int) -> list[Ranking]:
    rankings: list[Ranking] = [[] for _ in range(queries)]
    several = 'query_index' in rows.column_names
    numbers = rows.column('query_index').to_pylist() if several else [0] * len(rows)
    for number, key, far in zip(
        numbers, rows.column('path').to_pylist(), rows.column('_distance').to_pylist(), strict=True
    ):
        rankings[number].append((key, 1.0 - far))
    return [sorted(ranking, key=lambda match: -match[1]) for ranking in rankings]
