"""The metrics of sfsc_timm.evaluation spelled out as loops over queries and items, in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def scores_of(query: Tensor, gallery: Tensor, distance: str) -> np.ndarray:
    """(Nq, Ng) scores in float64."""
    q, g = query.double().numpy(), gallery.double().numpy()
    if distance == 'euclidean':
        return -np.sqrt(((q[:, None] - g[None]) ** 2).sum(2))
    q, g = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, g))
    return q @ g.T


def taking_part(i, query_ids, gallery_ids, query_cameras=None, gallery_cameras=None, same_set=False):
    """Gallery indices that are not junk for query i, and whether each is relevant."""
    query_ids, gallery_ids, query_cameras, gallery_cameras = (
        None if x is None else x.tolist() for x in (query_ids, gallery_ids, query_cameras, gallery_cameras)
    )
    items, relevant = [], []
    for j in range(len(gallery_ids)):
        same = gallery_ids[j] == query_ids[i]
        if same and query_cameras is not None and gallery_cameras[j] == query_cameras[i]:
            continue
        if same_set and i == j:
            continue
        items.append(j)
        relevant.append(bool(same) and query_ids[i] >= 0)
    return items, relevant


def query_metrics(scores, relevant):
    """(AP, rank of first hit, INP) of one ranking; a tie has its group's last rank, non-matches come first in it."""
    precisions, first, last = [], None, 0
    scores, relevant = np.asarray(scores), np.asarray(relevant)
    for i in relevant.nonzero()[0]:
        rank = (scores >= scores[i]).sum()
        hits = (relevant & (scores >= scores[i])).sum()
        precisions.append(hits / rank)
        position = rank - hits + 1
        first = position if first is None else min(first, position)
        last = max(last, rank)
    return sum(precisions) / len(precisions), first, len(precisions) / last


def naive_metrics(scores, labels, ks=(1, 5, 10)):
    """Dictionary of mAP, mINP, cmc (percent), evaluated and skipped queries."""
    results = []
    for i in range(len(scores)):
        items, relevant = taking_part(i, **labels)
        if any(relevant):
            results.append(query_metrics([scores[i, j] for j in items], relevant))
    ap, first, inp = (np.array(column, dtype=float) for column in zip(*results, strict=True))
    return {
        'mAP': 100 * ap.mean(),
        'mINP': 100 * inp.mean(),
        'cmc': {k: 100 * (first <= k).mean() for k in ks},
        'num_queries': len(results),
        'num_skipped': len(scores) - len(results),
    }


def clustered(generator, ids, dim, noise):
    """Embeddings around one centre per identity, always the same ones: neither a perfect nor a useless model."""
    centres = torch.randn(int(max(ids)) + 2, dim, generator=torch.Generator().manual_seed(dim))
    return centres[torch.as_tensor(ids)] + noise * torch.randn(len(ids), dim, generator=generator)
