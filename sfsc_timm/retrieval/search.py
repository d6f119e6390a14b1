"""Exact search: the k nearest gallery items of every query, in tiles of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluation.ground_truth import GroundTruth
from ..evaluation.scores import Distance, centre_of, centred, check_embeddings, score_blocks
from ..evaluation.select import GROUP, select

# Gallery items per tile: memory does not grow with the gallery. A little less than a power of two, at which the rows
# of a block would compete for the same cache sets.
_TILE = (1 << 16) - GROUP


def search(
    query: Tensor,
    gallery: Tensor,
    k: int,
    *,
    distance: Distance = 'cosine',
    truth: GroundTruth | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest gallery items of every query, exactly.

    Args:
        query: Query embeddings, shape `(Nq, D)`; its device is used.
        gallery: Gallery embeddings, shape `(Ng, D)`.
        k: How many items to return, at most Ng.
        distance: 'cosine' or 'euclidean'.
        truth: Where given, junk items (same identity and camera, or the query itself) are passed over.
        block_size: Queries per block; None chooses it.

    Returns:
        Scores `(Nq, k)`, descending in each row: cosine similarity, or *negative* Euclidean distance; and gallery
        indices `(Nq, k)`. Items of equal score come in the order of the gallery (which of them are taken when not all
        fit is arbitrary). Where junk leaves fewer than k items, the rest have score -inf. Both on the CPU.

    Raises:
        ValueError: Embeddings that do not fit each other or `truth`, NaN, or k out of range.
    """
    check_embeddings(query, 'query', len(query if truth is None else truth.query_ids))
    check_embeddings(gallery, 'gallery', len(gallery if truth is None else truth.gallery_ids), query.shape[1])
    if not 1 <= k <= len(gallery):
        raise ValueError(f'k must be between 1 and the size of the gallery, {len(gallery)}; got {k}.')
    values = torch.empty(len(query), 0)
    items = torch.empty(len(query), 0, dtype=torch.int64)
    centre = centre_of(gallery, distance)  # one for all tiles, or equal items would not get equal scores
    for begin in range(0, len(gallery), _TILE):
        tile = gallery[begin : begin + _TILE]
        found = []
        for indices, scores in score_blocks(query, tile, torch.arange(len(query)), distance, block_size, centre):
            if truth is not None:
                _remove_junk(scores, truth, indices, begin, len(tile))
            found.append([part.cpu() for part in select(scores, min(k, len(tile)))])
        new_values, new_items = (torch.cat(column) for column in zip(*found, strict=True))
        values, items = torch.cat([values, new_values], 1), torch.cat([items, new_items + begin], 1)
        values, chosen = values.topk(min(k, values.shape[1]), 1)
        items = items.gather(1, chosen)
    if distance == 'euclidean':
        # Blocks hold q.g - |g|^2 / 2, and |q - g|^2 = |q|^2 - 2 (q.g - |g|^2 / 2).
        values = -(centred(query.cpu(), centre).square().sum(1, keepdim=True) - 2 * values).clamp_(min=0).sqrt_()
    # Equal scores in the order of the gallery: by item, then stably by score.
    items, order = items.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, items.gather(1, order)


def _remove_junk(scores: Tensor, truth: GroundTruth, queries: Tensor, begin: int, length: int) -> None:
    columns, _, junk = (part.to(scores.device) for part in truth.matches(queries))
    columns -= begin
    rows, entries = (junk & (columns >= 0) & (columns < length)).nonzero(as_tuple=True)
    scores[rows, columns[rows, entries]] = -torch.inf
