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
from .metrics import retrieval_metrics
from .rerank import KReciprocal
from .scores import Distance

Cells = NDArray[np.float64]

_LEAST_UPDATE = 1.0  # mAP by which a gallery's model must be better for its update gain to mean anything


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class CompatibilityMatrix:
    """M(φq, φg) for all pairs of sub-models: rows embed the queries, columns the gallery, values percent.

    Attributes:
        widths: The widths of the m sub-models, smallest sub-model first.
        mAP: Mean average precision, `(m, m)`.
        mINP: Mean inverse negative penalty, `(m, m)`.
        cmc: Rank k to CMC at k (Recall@k), `(m, m)` each.
        params: Parameters of each sub-model, or None.
        macs: Multiply-adds of each sub-model for one image, or None.
        info: Whatever else should travel with the numbers (data set, counts, distance, latency, ...); JSON values.
        names: Names of the sub-models; without any, the paper's by capacity: φ1/16, φ1/4, φ9/16, φ.

    Raises:
        ValueError: Cells or costs are not of as many sub-models as there are widths.
    """

    widths: tuple[float, ...]
    mAP: Cells  # noqa: N815 - the field's name for it
    mINP: Cells  # noqa: N815
    cmc: dict[int, Cells]
    params: tuple[int, ...] | None = None
    macs: tuple[int, ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = len(self.widths)
        object.__setattr__(self, 'names', tuple(self.names) or tuple(map(paper_name, self.widths)))
        cells = {'mAP': self.mAP, 'mINP': self.mINP, **{f'rank{k}': cell for k, cell in self.cmc.items()}}
        for name, values in cells.items():
            if values.shape != (size, size):
                raise ValueError(f'{name} must be {size} x {size} for {size} widths, got shape {values.shape}.')
        for name, entries in (('names', self.names), ('params', self.params), ('macs', self.macs)):
            if entries is not None and len(entries) != size:
                raise ValueError(f'{name} must have one entry for each of the widths {self.widths}, got {entries}.')

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

    @property
    def update_gain(self) -> float:
        r"""What share of a better gallery model's accuracy the smaller query models get, pooled over their pairs.

        $$ U = \frac{\sum_{q < g} M(φ_q, φ_g) - M(φ_q, φ_q)}{\sum_{q < g} M(φ_g, φ_g) - M(φ_q, φ_q)} $$

        in mAP, over the pairs of a smaller query model q and a bigger gallery model g (one that stands further down)
        whose denominator is at least 1 mAP: below that there is nothing to gain, and the ratio would be noise. 1 is as
        good as g on both sides; at 0 embedding the gallery again by g is worth nothing to q, and below 0 it harms.
        NaN without such a pair.

        The measure is that of BCT (Shen et al., "Towards Backward-Compatible Representation Learning", CVPR 2020),
        who update the query model in front of an old gallery. Here the gallery's model is the better one, and its own
        self-test the upper bound. It says nothing of how good the models are: M itself counts first.
        """
        gained, possible = self._updates()
        return float(np.nansum(gained) / np.nansum(possible)) if not np.isnan(possible).all() else float('nan')

    @property
    def update_gains(self) -> Cells:
        """The update gain of each pair, `(m, m)`; NaN where the query model is not smaller or little can be gained."""
        gained, possible = self._updates()
        return gained / possible

    def _updates(self) -> tuple[Cells, Cells]:
        """What each pair gains over the query's self-test, and could gain; NaN for pairs that do not count."""
        own = self.self_tests
        possible = np.subtract.outer(own, own).T  # M(g, g) - M(q, q)
        counts = np.triu(possible >= _LEAST_UPDATE, 1)
        return np.where(counts, self.mAP - own[:, None], np.nan), np.where(counts, possible, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary: rows are queries, columns galleries, in percent, with the derived figures."""
        return {
            **self.info,
            'widths': list(self.widths),
            'names': list(self.names),
            'mAP': self.mAP.tolist(),
            'mINP': self.mINP.tolist(),
            **{f'rank{k}': cells.tolist() for k, cells in sorted(self.cmc.items())},
            'params': None if self.params is None else list(self.params),
            'macs': None if self.macs is None else list(self.macs),
            'gain': self.gain.tolist(),
            'compatible': self.compatible.tolist(),
            'diagonal_mean': self.diagonal_mean,
            'cross_mean': _or_none(self.cross_mean),
            'update_gain': _or_none(self.update_gain),
            'update_gains': [[_or_none(value) for value in row] for row in self.update_gains.tolist()],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompatibilityMatrix:
        """Read what :meth:`to_dict` wrote, now or when it called the MACs flops; unknown keys become `info`.

        Raises:
            ValueError: A key is missing, or a matrix has the wrong shape.
        """
        if missing := [key for key in ('widths', 'mAP', 'mINP') if key not in values]:
            raise ValueError(f'compatibility matrix: missing keys {missing}; found {sorted(values)}.')
        ranks = {key: int(key[4:]) for key in values if key.startswith('rank') and key[4:].isdigit()}
        derived = {'gain', 'compatible', 'diagonal_mean', 'cross_mean', 'update_gain', 'update_gains'}
        known = {'widths', 'names', 'mAP', 'mINP', 'params', 'macs', 'flops', *ranks, *derived}
        return cls(
            widths=tuple(values['widths']),
            mAP=np.asarray(values['mAP'], dtype=np.float64),
            mINP=np.asarray(values['mINP'], dtype=np.float64),
            cmc={k: np.asarray(values[key], dtype=np.float64) for key, k in ranks.items()},
            names=tuple(values.get('names', ())),
            params=_optional_tuple(values.get('params')),
            macs=_optional_tuple(values.get('macs', values.get('flops'))),
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
    macs: Mapping[float, int] | None = None,
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
        macs: Multiply-adds by width, to be kept with the result.
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
    return matrix_of(
        widths,
        [queries[width] for width in widths],
        [galleries[width] for width in widths],
        truth,
        params=None if params is None else tuple(params[width] for width in widths),
        macs=None if macs is None else tuple(macs[width] for width in widths),
        info=info,
        ks=ks,
        distance=distance,
        rerank=rerank,
        block_size=block_size,
    )


def matrix_of(
    widths: Sequence[float],
    queries: Sequence[Tensor],
    galleries: Sequence[Tensor],
    truth: GroundTruth,
    *,
    names: Sequence[str] = (),
    params: Sequence[int] | None = None,
    macs: Sequence[int] | None = None,
    info: Mapping[str, Any] | None = None,
    distance: Distance = 'cosine',
    rerank: KReciprocal | None = None,
    **options: Any,
) -> CompatibilityMatrix:
    """As :func:`compatibility_matrix`, for sub-models of which several may have one width, as those of two networks do.

    Args:
        widths: Of each sub-model, smallest sub-model first.
        queries: Query embeddings `(Nq, D)` of each.
        galleries: Gallery embeddings `(Ng, D)` of each.
        truth: Identities and cameras, shared by all cells.
        names: Of each; empty for those by capacity.
        params: Parameters of each.
        macs: Multiply-adds of each.
        info: More to keep with the matrix.
        distance: 'cosine' or 'euclidean'.
        rerank: Re-rank first; None ranks by the distance itself.
        **options: Of :func:`retrieval_metrics`: ks, block_size.
    """
    options.update(distance=distance, rerank=rerank)
    cells = [[retrieval_metrics(query, gallery, truth, **options) for gallery in galleries] for query in queries]
    return CompatibilityMatrix(
        widths=tuple(widths),
        mAP=np.array([[cell.mAP for cell in row] for row in cells]),
        mINP=np.array([[cell.mINP for cell in row] for row in cells]),
        cmc={k: np.array([[cell.cmc[k] for cell in row] for row in cells]) for k in cells[0][0].cmc},
        names=tuple(names),
        params=_optional_tuple(params),
        macs=_optional_tuple(macs),
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


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def _optional_tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
