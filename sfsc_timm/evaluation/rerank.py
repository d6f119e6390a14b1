"""Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .scores import Distance, centre_of, centred, score_blocks
from .select import select

# Points per step where every point meets its neighbours' neighbours: some 5,000 comparisons each.
_STEP = 2048
# Queries per step where every entry of a query meets all gallery items that share it: some 10,000 pairs each.
_OVERLAP_STEP = 128


@dataclass(frozen=True)
class KReciprocal:
    """Parameters of k-reciprocal re-ranking; the defaults are the paper's for Market-1501.

    Attributes:
        k1: Size of the neighbourhood whose reciprocal members encode a point.
        k2: Number of neighbours, the point included, over which encodings are averaged (local query expansion).
        weight: Share of the original distance in the final one, λ in [0, 1].
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.k2 <= self.k1 + 1:
            raise ValueError(f'k2 must be between 1 and k1 + 1 = {self.k1 + 1}, got {self.k2}.')
        if not 0 <= self.weight <= 1:
            raise ValueError(f'weight must be in [0, 1], got {self.weight}.')


def rerank_blocks(
    query: Tensor,
    gallery: Tensor,
    queries: Tensor,
    rerank: KReciprocal,
    distance: Distance,
    block_size: int | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Score queries by the negative re-ranked distance; otherwise as :func:`score_blocks`.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, section 3. Over the
    union of queries and gallery, with $N(p, k)$ the k nearest points of p and p itself,

    $$ R(p, k) = \{ i \in N(p, k) : p \in N(i, k) \} $$ (eq. 2)
    $$ R^*(p) = R(p, k_1) \cup \bigcup_{q \in R(p, k_1)} \{ R(q, k_1 / 2) :
       |R(p, k_1) \cap R(q, k_1 / 2)| \ge \tfrac23 |R(q, k_1 / 2)| \} $$ (eq. 4)
    $$ V_p(i) \propto [i \in R^*(p)] \, e^{-d(p, i)}, \quad \sum_i V_p(i) = 1, \qquad
       \bar V_p = \mathrm{mean}_{i \in N(p, k_2)} V_i $$ (eqs. 7, 11)
    $$ d^*(p, g) = (1 - \lambda) \Big( 1 - \frac{\sum_i \min(\bar V_p(i), \bar V_g(i))}
       {\sum_i \max(\bar V_p(i), \bar V_g(i))} \Big) + \lambda d(p, g) $$ (eqs. 10, 12)

    d is the squared Euclidean distance (of normalised embeddings for 'cosine'), divided by its maximum over the row.
    That division, the union of both sets and the normalised V follow the authors' released code, which the paper does
    not spell out; the code also has > in place of the paper's ≥ in eq. 4.

    V is sparse and only its non-zero entries are kept: beside the embeddings, memory is one block of scores, some
    hundred entries per point, and the pairs of entries of one block of queries.

    Args:
        query: Query embeddings `(Nq, D)`.
        gallery: Gallery embeddings `(Ng, D)`.
        queries: Indices of the queries to score.
        rerank: The parameters.
        distance: 'cosine' or 'euclidean'.
        block_size: Queries per block; None chooses it.

    Yields:
        Query indices `(B,)` and scores `(B, P)`, as :func:`score_blocks`.
    """
    centre = centre_of(gallery, distance)
    points = torch.cat([centred(part, centre) for part in (query.cpu(), gallery.cpu())]).to(query.device)
    if rerank.k1 + 1 > len(points):
        raise ValueError(f'k1 must be below the number of queries and gallery items, {len(points)}; got {rerank.k1}.')
    if distance == 'cosine':
        points /= torch.linalg.vector_norm(points, dim=1, keepdim=True).clamp_(min=1e-12)
    neighbours, largest = _neighbours(points, rerank.k1 + 1, block_size)
    encoding = _encode(points, neighbours, largest, rerank)
    inverted = _InvertedIndex(encoding, len(query))
    norm = points.square().sum(1)
    for indices, scores in score_blocks(points[: len(query)], points[len(query) :], queries, 'euclidean', block_size):
        rows = indices.to(points.device)
        overlap = inverted.overlap(encoding, rows)
        original = (norm[rows, None] - 2 * scores[:, : len(gallery)]).clamp_(min=0) / largest[rows, None]
        jaccard = 1 - overlap / (2 - overlap)  # rows sum to 1, so that sum of maxima = 2 - sum of minima
        scores[:, : len(gallery)] = -((1 - rerank.weight) * jaccard + rerank.weight * original)
        yield indices, scores


def _neighbours(points: Tensor, k: int, block_size: int | None) -> tuple[Tensor, Tensor]:
    """Nearest k points, nearest first, `(N, k)`, and the largest squared distance of every point `(N,)`."""
    parts = []
    norm = points.square().sum(1)
    for indices, scores in score_blocks(points, points, torch.arange(len(points)), 'euclidean', block_size):
        values, columns = select(scores, k)
        nearest = columns.gather(1, values.argsort(dim=1, descending=True, stable=True))
        parts.append((nearest, norm[indices.to(points.device)] - 2 * scores[:, : len(points)].amin(1)))
    neighbours, largest = (torch.cat(column) for column in zip(*parts, strict=True))
    return neighbours, largest.clamp_(min=1e-12)


def _encode(points: Tensor, neighbours: Tensor, largest: Tensor, rerank: KReciprocal) -> Tensor:
    """Encodings of all points as one sparse, coalesced matrix `(N, N)` whose rows sum to 1."""
    size = len(points)
    half = neighbours[:, : round(rerank.k1 / 2) + 1]
    masks = _reciprocal(neighbours), _reciprocal(half)
    rows, columns, values = [], [], []
    for begin in range(0, size, _STEP):
        block = torch.arange(begin, min(begin + _STEP, size), device=points.device)
        row, column = _expanded_sets(block, neighbours, half, *masks)
        difference = _squared_distances(points, row, column) / largest[row]
        value = torch.exp(-difference)
        total = torch.zeros(len(block), device=points.device).index_add_(0, row - begin, value)
        rows.append(row)
        columns.append(column)
        values.append(value / total[row - begin])
    encoding = _sparse(torch.cat(rows), torch.cat(columns), torch.cat(values), size)
    if rerank.k2 == 1:
        return encoding
    start = torch.searchsorted(encoding.indices()[0].contiguous(), torch.arange(size + 1, device=points.device))
    near = neighbours[:, : rerank.k2].flatten()
    entry, source = _expand(start[near], start[near + 1])
    return _sparse(source // rerank.k2, encoding.indices()[1, entry], encoding.values()[entry] / rerank.k2, size)


def _reciprocal(neighbours: Tensor) -> Tensor:
    """Which of the k neighbours of each point have it among their own k, `(N, k)`."""
    parts = []
    for begin in range(0, len(neighbours), _STEP):
        near = neighbours[begin : begin + _STEP]
        point = torch.arange(begin, begin + len(near), device=near.device)
        parts.append((neighbours[near] == point[:, None, None]).any(2))
    return torch.cat(parts)


def _expanded_sets(
    block: Tensor, near: Tensor, half: Tensor, mutual: Tensor, half_mutual: Tensor
) -> tuple[Tensor, Tensor]:
    """R* of a block of points, as sorted (point, member) pairs, `(M,)` each."""
    own, own_mask = near[block], mutual[block]  # (b, k)
    other, other_mask = half[own], half_mutual[own]  # (b, k, h)
    members = own.masked_fill(~own_mask, -1)
    shared = (other[..., None] == members[:, None, None]).any(3) & other_mask
    accepted = own_mask & (3 * shared.sum(2) >= 2 * other_mask.sum(2))
    other_mask &= accepted[..., None]
    # One number per pair: unique() of numbers is many times faster than that of rows.
    pairs = torch.cat(
        [(block[:, None] * len(near) + own)[own_mask], (block[:, None, None] * len(near) + other)[other_mask]]
    )
    pairs = pairs.unique()
    return pairs // len(near), pairs % len(near)


def _squared_distances(points: Tensor, row: Tensor, column: Tensor) -> Tensor:
    parts = [
        (points[r] - points[c]).square_().sum(1)
        for r, c in zip(row.split(16 * _STEP), column.split(16 * _STEP), strict=True)
    ]
    return torch.cat(parts)


def _sparse(row: Tensor, column: Tensor, values: Tensor, size: int) -> Tensor:
    """Sparse `(size, size)` matrix; entries at the same place are added."""
    matrix = torch.sparse_coo_tensor(torch.stack([row, column]), values, (size, size), check_invariants=False)
    return matrix.coalesce()


class _InvertedIndex:
    """Gallery rows of the encoding by column, to find the few gallery items that share anything with a query."""

    def __init__(self, encoding: Tensor, num_query: int) -> None:
        row, column = encoding.indices()
        keep = (row >= num_query).nonzero()[:, 0]
        order = keep[column[keep].argsort(stable=True)]
        self.size = encoding.shape[0] - num_query
        self.item, self.value = row[order] - num_query, encoding.values()[order]
        columns = torch.arange(encoding.shape[1] + 1, device=row.device)
        self.start = torch.searchsorted(column[order], columns)
        self.row_start = torch.searchsorted(row, columns)

    def overlap(self, encoding: Tensor, rows: Tensor) -> Tensor:
        """Sum of the minima of the encodings of some queries `(B,)` and of every gallery item, `(B, Ng)`."""
        total = torch.zeros(len(rows), self.size, device=rows.device)
        for part, result in zip(rows.split(_OVERLAP_STEP), total.split(_OVERLAP_STEP), strict=True):
            entry, owner = _expand(self.row_start[part], self.row_start[part + 1])
            column = encoding.indices()[1, entry]
            posting, source = _expand(self.start[column], self.start[column + 1])
            smaller = torch.minimum(self.value[posting], encoding.values()[entry[source]])
            result.view(-1).index_add_(0, owner[source] * self.size + self.item[posting], smaller)
        return total


def _expand(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenated ranges start[i] .. end[i] - 1, and for each number the i it comes from."""
    length = end - start
    source = torch.arange(len(start), device=start.device).repeat_interleave(length)
    offset = torch.arange(len(source), device=start.device) - (length.cumsum(0) - length)[source]
    return start[source] + offset, source
