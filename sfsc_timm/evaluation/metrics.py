"""Retrieval metrics of one pair of query and gallery embeddings: mAP, CMC, mINP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .ground_truth import GroundTruth
from .ranking import rank_block
from .rerank import KReciprocal, rerank_blocks
from .scores import Distance, centre_of, check_embeddings, score_blocks


@dataclass(frozen=True, eq=False)
class QueryStatistics:
    """What every evaluated query scores; each field has shape `(N,)`, in the order of `query`.

    Attributes:
        query: Index of the query.
        average_precision: AP in (0, 1].
        first_rank: Rank of the first relevant item, from 1.
        inverse_negative_penalty: INP in (0, 1].
    """

    query: Tensor
    average_precision: Tensor
    first_rank: Tensor
    inverse_negative_penalty: Tensor


@dataclass(frozen=True)
class RetrievalMetrics:
    """Means over the evaluated queries, in percent.

    Attributes:
        mAP: Mean average precision.
        mINP: Mean inverse negative penalty.
        cmc: Cumulative matching characteristic: k to the share of queries with a relevant item among the first k.
            Metric learning calls the same number Recall@k.
        num_queries: Queries evaluated.
        num_skipped: Queries left out because they have no relevant item.
    """

    mAP: float  # noqa: N815 - the field's name for it
    mINP: float  # noqa: N815
    cmc: dict[int, float]
    num_queries: int
    num_skipped: int


def retrieval_metrics(
    query: Tensor,
    gallery: Tensor,
    truth: GroundTruth,
    *,
    ks: Sequence[int] = (1, 5, 10),
    distance: Distance = 'cosine',
    rerank: KReciprocal | None = None,
    block_size: int | None = None,
) -> RetrievalMetrics:
    r"""Rank the gallery for every query and average mAP, CMC and mINP.

    With $\mathcal{G}_q$ the gallery without the query's junk items (see :class:`GroundTruth`),
    $\mathcal{R}_q \subseteq \mathcal{G}_q$ its relevant items, $s_q$ the score (cosine similarity or negative
    Euclidean distance) and

    $$ n_q(i) = |\{j \in \mathcal{G}_q : s_q(j) \ge s_q(i)\}|, \qquad
       h_q(i) = |\{j \in \mathcal{R}_q : s_q(j) \ge s_q(i)\}| $$

    (the rank of item i, and the number of relevant items down to it), the metrics are

    $$ \mathrm{AP}_q = \frac{1}{|\mathcal{R}_q|} \sum_{i \in \mathcal{R}_q} \frac{h_q(i)}{n_q(i)}, \qquad
       \mathrm{INP}_q = \frac{|\mathcal{R}_q|}{\max_{i \in \mathcal{R}_q} n_q(i)}, \qquad
       \mathrm{CMC}_q(k) = [\min_{i \in \mathcal{R}_q} (n_q(i) - h_q(i) + 1) \le k] . $$

    **Denominator.** *All* relevant items count, found or not, over the whole ranking (as in torchreid, fast-reid,
    scikit-learn and pytorch-metric-learning's `mean_average_precision`). open-metric-learning's mAP@k divides by the
    hits among the first k, and pytorch-metric-learning's `mean_average_precision_at_r` cuts the ranking at
    $|\mathcal{R}_q|$; the original Market-1501 script takes the trapezoid under the precision-recall curve, which
    differs slightly. mINP: Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, section 4.2.

    **Ties.** Items of equal score share the group's last rank, so nothing depends on the order of the gallery, and
    AP equals scikit-learn's `average_precision_score`, ties included. The rule never flatters: an embedding that
    collapses to a point gets the prevalence $|\mathcal{R}_q| / |\mathcal{G}_q|$ (chance) rather than 100, and its
    first hit comes after all non-matches. Ties are exact equality of float32 scores.

    Nothing is sorted: $n_q(i)$ is counted, in blocks of queries, with memory `4 * block_size * Ng` bytes.

    Args:
        query: Query embeddings, any floating type (computed in float32), shape `(Nq, D)`; its device is used.
        gallery: Gallery embeddings, shape `(Ng, D)`.
        truth: Identities and cameras of both sets.
        ks: Ranks at which CMC is given.
        distance: 'cosine' (embeddings are normalised here, on copies) or 'euclidean'.
        rerank: Re-rank by k-reciprocal neighbours first; None ranks by the distance itself.
        block_size: Queries per block; None chooses up to 1024 and 128 MiB.

    Returns:
        The means, in percent.

    Raises:
        ValueError: Shapes or types that do not fit, NaN or infinite embeddings, or an unknown option.
    """
    statistics = query_statistics(query, gallery, truth, distance=distance, rerank=rerank, block_size=block_size)
    return summarise(statistics, truth, ks)


def query_statistics(
    query: Tensor,
    gallery: Tensor,
    truth: GroundTruth,
    *,
    distance: Distance = 'cosine',
    rerank: KReciprocal | None = None,
    block_size: int | None = None,
) -> QueryStatistics:
    """AP, first hit and INP of every evaluated query; arguments as in :func:`retrieval_metrics`."""
    check_embeddings(query, 'query', len(truth.query_ids))
    check_embeddings(gallery, 'gallery', len(truth.gallery_ids), query.shape[1])
    if rerank is None:
        blocks = score_blocks(query, gallery, truth.evaluated, distance, block_size, centre_of(gallery, distance))
    elif truth.same_set:
        raise ValueError(
            'rerank needs a gallery apart from the queries: in self-retrieval every query is in the gallery, and its '
            'copy there would lend it neighbours. Leave rerank out.'
        )
    else:
        blocks = rerank_blocks(query, gallery, truth.evaluated, rerank, distance, block_size)
    parts = [
        rank_block(scores, *(part.to(scores.device) for part in truth.matches(queries))) for queries, scores in blocks
    ]
    ap, first, inp = (torch.cat(column) for column in zip(*parts, strict=True))
    return QueryStatistics(truth.evaluated, ap, first, inp)


def summarise(statistics: QueryStatistics, truth: GroundTruth, ks: Sequence[int]) -> RetrievalMetrics:
    """Average over queries, in percent."""
    if not ks or any(int(k) != k or k < 1 for k in ks):
        raise ValueError(f'ks must be positive integers such as (1, 5, 10), got {ks!r}.')
    return RetrievalMetrics(
        mAP=100 * float(statistics.average_precision.mean()),
        mINP=100 * float(statistics.inverse_negative_penalty.mean()),
        cmc={int(k): 100 * float((statistics.first_rank <= k).double().mean()) for k in ks},
        num_queries=len(statistics.query),
        num_skipped=truth.skipped,
    )
