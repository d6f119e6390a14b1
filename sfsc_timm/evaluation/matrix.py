"""The compatibility matrix: every query width against every gallery width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .ground_truth import GroundTruth
from .metrics import RetrievalMetrics, retrieval_metrics
from .rerank import KReciprocal
from .scores import Distance

Cells = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class CompatibilityMatrix:
    """M(φq, φg) for all pairs of widths: rows are query widths, columns gallery widths, values percent.

    Attributes:
        widths: The m widths, ascending.
        mAP: Mean average precision, `(m, m)`.
        mINP: Mean inverse negative penalty, `(m, m)`.
        cmc: Rank k to CMC at k (Recall@k), `(m, m)` each.
        params: Parameters of the sub-model at each width, or None.
        flops: Multiply-adds of the sub-model at each width for one image, or None.
        info: Whatever else should travel with the numbers (data set, counts, distance, latency, ...); JSON values.
    """

    widths: tuple[float, ...]
    mAP: Cells  # noqa: N815 - the field's name for it
    mINP: Cells  # noqa: N815
    cmc: dict[int, Cells]
    params: tuple[int, ...] | None = None
    flops: tuple[int, ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.widths)
        cells = {'mAP': self.mAP, 'mINP': self.mINP, **{f'rank{k}': cell for k, cell in self.cmc.items()}}
        for name, values in cells.items():
            if values.shape != (size, size):
                raise ValueError(f'{name} must be {size} x {size} for {size} widths, got shape {values.shape}.')
        for name, costs in (('params', self.params), ('flops', self.flops)):
            if costs is not None and len(costs) != size:
                raise ValueError(f'{name} must have one entry for each of the widths {self.widths}, got {costs}.')

    @property
    def names(self) -> tuple[str, ...]:
        """The paper's names of the sub-models, by capacity: φ1/16, φ1/4, φ9/16, φ."""
        return tuple(paper_name(width) for width in self.widths)

    @property
    def self_tests(self) -> Cells:
        """The diagonal of mAP: query and gallery of one width, `(m,)`."""
        return np.diag(self.mAP)

    @property
    def diagonal_mean(self) -> float:
        """Mean mAP of the self-tests."""
        return float(self.self_tests.mean())

    @property
    def cross_mean(self) -> float:
        """Mean mAP of the cross-tests (NaN for a single width)."""
        cross = self.mAP[~np.eye(len(self.widths), dtype=bool)]
        return float(cross.mean()) if len(cross) else float('nan')

    @property
    def gain(self) -> Cells:
        """M(φq, φg) − min(M(φq, φq), M(φg, φg)) in mAP, `(m, m)`: what a cross-test gains over the weaker self-test."""
        return self.mAP - np.minimum.outer(self.self_tests, self.self_tests)

    @property
    def compatible(self) -> NDArray[np.bool_]:
        """Whether each cross-test beats the weaker self-test, `(m, m)`; a self-test counts as compatible."""
        return (self.gain > 0) | np.eye(len(self.widths), dtype=bool)

    @property
    def num_compatible(self) -> int:
        """How many of the m (m − 1) cross-tests are compatible."""
        return int(self.compatible.sum()) - len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary: rows are queries, columns galleries, in percent, with the derived figures."""
        return {
            **self.info,
            'widths': list(self.widths),
            'mAP': self.mAP.tolist(),
            'mINP': self.mINP.tolist(),
            **{f'rank{k}': cells.tolist() for k, cells in sorted(self.cmc.items())},
            'params': None if self.params is None else list(self.params),
            'flops': None if self.flops is None else list(self.flops),
            'gain': self.gain.tolist(),
            'compatible': self.compatible.tolist(),
            'diagonal_mean': self.diagonal_mean,
            'cross_mean': self.cross_mean if len(self.widths) > 1 else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompatibilityMatrix:
        """Read what :meth:`to_dict` wrote; unknown keys become `info`.

        Raises:
            ValueError: A key is missing, or a matrix has the wrong shape.
        """
        if missing := [key for key in ('widths', 'mAP', 'mINP') if key not in values]:
            raise ValueError(f'compatibility matrix: missing keys {missing}; found {sorted(values)}.')
        ranks = {key: int(key[4:]) for key in values if key.startswith('rank') and key[4:].isdigit()}
        derived = {'gain', 'compatible', 'diagonal_mean', 'cross_mean'}
        known = {'widths', 'mAP', 'mINP', 'params', 'flops', *ranks, *derived}
        return cls(
            widths=tuple(values['widths']),
            mAP=np.asarray(values['mAP'], dtype=np.float64),
            mINP=np.asarray(values['mINP'], dtype=np.float64),
            cmc={k: np.asarray(values[key], dtype=np.float64) for key, k in ranks.items()},
            params=_optional_tuple(values.get('params')),
            flops=_optional_tuple(values.get('flops')),
            info={key: value for key, value in values.items() if key not in known},
        )


def compatibility_matrix(
    queries: Mapping[float, Tensor],
    galleries: Mapping[float, Tensor],
    truth: GroundTruth,
    *,
    ks: Sequence[int] = (1, 5, 10),
    distance: Distance = 'cosine',
    rerank: KReciprocal | None = None,
    block_size: int | None = None,
    params: Mapping[float, int] | None = None,
    flops: Mapping[float, int] | None = None,
    info: Mapping[str, Any] | None = None,
) -> CompatibilityMatrix:
    """Evaluate all pairs of query width and gallery width; definitions in :func:`retrieval_metrics`.

    Args:
        queries: Width to query embeddings `(Nq, D)`, as :func:`embed` returns them.
        galleries: Width to gallery embeddings `(Ng, D)`, for the same widths.
        truth: Identities and cameras, shared by all cells.
        ks: Ranks at which CMC (Recall@k) is given.
        distance: 'cosine' or 'euclidean'.
        rerank: Re-rank by k-reciprocal neighbours first; None ranks by the distance itself.
        block_size: Queries per block; None chooses it.
        params: Parameters by width, to be kept with the result.
        flops: Multiply-adds by width, to be kept with the result.
        info: More to keep with it, such as the data set or measured latencies; JSON values.

    Returns:
        The matrix, in percent, widths ascending.

    Raises:
        ValueError: Different widths on both sides, or bad embeddings.
    """
    widths = tuple(sorted(queries))
    if not widths or set(widths) != set(galleries):
        raise ValueError(
            f'queries and galleries must have the same widths, at least one; got {sorted(queries)} and '
            f'{sorted(galleries)}. For a single pair of different models use retrieval_metrics.'
        )

    def evaluate(query: Tensor, gallery: Tensor) -> RetrievalMetrics:
        return retrieval_metrics(query, gallery, truth, ks=ks, distance=distance, rerank=rerank, block_size=block_size)

    cells = [[evaluate(queries[q], galleries[g]) for g in widths] for q in widths]
    return CompatibilityMatrix(
        widths=widths,
        mAP=np.array([[cell.mAP for cell in row] for row in cells]),
        mINP=np.array([[cell.mINP for cell in row] for row in cells]),
        cmc={k: np.array([[cell.cmc[k] for cell in row] for row in cells]) for k in cells[0][0].cmc},
        params=None if params is None else tuple(params[width] for width in widths),
        flops=None if flops is None else tuple(flops[width] for width in widths),
        info={
            'distance': distance,
            'rerank': None if rerank is None else asdict(rerank),
            'num_queries': cells[0][0].num_queries,
            'num_skipped_queries': cells[0][0].num_skipped,
            'num_gallery': len(truth.gallery_ids),
            **(info or {}),
        },
    )


def paper_name(width: float) -> str:
    """Name of the sub-model at `width` by its capacity, the square of the width: φ1/16 at 0.25, φ at 1.0."""
    capacity = Fraction(width).limit_denominator(64) ** 2
    return 'φ' if capacity == 1 else f'φ{capacity}'


def _optional_tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
