"""Builds the index of a Lance gallery: the kind by its size, and its search measured against the exact one.

How many parts are looked into and how many candidates are refined is not believed but measured: recall@10 on a sample
of the gallery's own items, both doubled until it reaches the target.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ..blockwise import Ranking
from .gallery import LanceGallery
from .index import ANN_KINDS, Ann, AnnKind
from .table import column_of, to_tensor

__all__ = ['build_index', 'kind_for']

# Below the first an exact scan takes some hundredths of a second; above the second a graph needs too much memory.
_FLAT, _GRAPH = 100_000, 1_000_000
_LEAST = 256  # that product quantisation can be trained on
_SAMPLE, _TOP = 100, 10
_REFINE, _MOST_REFINED = 10, 160


def kind_for(items: int) -> AnnKind:
    """The kind of index that suits a gallery of so many items: none where an exact scan is fast."""
    if items < _FLAT:
        return 'flat'
    return 'ivf_hnsw_sq' if items < _GRAPH else 'ivf_pq'


def build_index(
    gallery: LanceGallery,
    kind: AnnKind = 'auto',
    *,
    partitions: int | None = None,
    sub_vectors: int | None = None,
    target: float = 0.95,
) -> Ann | None:
    """Builds an index, or drops the one that is there, and measures it.

    Args:
        gallery: Whose items.
        kind: 'auto' chooses by the number of items, 'flat' is none: every item is compared.
        partitions: Into how many parts the items are split; None chooses.
        sub_vectors: Of ivf_pq, bytes of an item's code, which must divide the embedding's size; None is an eighth.
        target: Recall@10 up to which search is made more thorough, in (0, 1].

    Returns:
        How it is searched, and its recall, also noted in the gallery; None without an index.

    Raises:
        ValueError: Options that do not fit, or too few items.
    """
    if kind not in ANN_KINDS:
        raise ValueError(f'kind of index must be one of {ANN_KINDS}, got {kind!r}')
    if not 0 < target <= 1:
        raise ValueError(f'recall to reach must be in (0, 1], got {target:g}')
    items, column = len(gallery), column_of(gallery.info.embed_dim)
    chosen = kind_for(items) if kind == 'auto' else kind
    gallery.ann = None  # at no time one that is not there
    if chosen == 'flat':
        for index in gallery.table.list_indices():
            if index.columns == [column]:
                gallery.table.drop_index(index.name)
        return None
    if items < _LEAST:
        raise ValueError(f'an index needs at least {_LEAST} items, got {items}; search them one by one, by flat')
    ann = _build(gallery, chosen, column, items, partitions, sub_vectors)
    ann = _measured(gallery, ann, target)
    gallery.ann = ann
    return ann


def _build(
    gallery: LanceGallery, kind: str, column: str, items: int, partitions: int | None, sub_vectors: int | None
) -> Ann:
    from lancedb.index import HnswSq, IvfPq

    size = gallery.info.embed_dim
    if kind == 'ivf_pq':
        parts = partitions or max(1, isqrt(items))
        codes = sub_vectors or size // next(length for length in (8, 4, 2, 1) if size % length == 0)
        if size % codes:
            raise ValueError(f'sub-vectors must divide the {size} numbers of an embedding, got {codes}')
        config: Any = IvfPq(distance_type='cosine', num_partitions=parts, num_sub_vectors=codes)
    else:
        parts = partitions or max(1, items >> 18)
        config = HnswSq(distance_type='cosine', num_partitions=parts)
    gallery.table.checkout_latest()
    gallery.table.create_index(column, config=config, replace=True)
    return Ann(kind, parts, min(parts, max(8, parts // 50)), _REFINE, items)


def _measured(gallery: LanceGallery, ann: Ann, target: float) -> Ann:
    """Makes the search more thorough until it reaches the target, or can get no further."""
    sample = _sample(gallery)
    exact = gallery.search(sample, _TOP + 1, exact=True)
    while True:
        found = gallery.search(sample, _TOP + 1, ann=ann)
        ann = replace(ann, recall=_recall(found, exact))
        if ann.recall >= target or (ann.probes == ann.partitions and ann.refine >= _MOST_REFINED):
            return ann
        ann = replace(ann, probes=min(2 * ann.probes, ann.partitions), refine=min(2 * ann.refine, _MOST_REFINED))


def _sample(gallery: LanceGallery) -> Tensor:
    """Embeddings of items spread over the gallery."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(len(gallery), generator=generator)[:_SAMPLE].sort().values.tolist()
    rows = gallery.table.take_offsets(places).select([column_of(gallery.info.embed_dim)]).to_arrow()
    return torch.cat([to_tensor(batch, gallery.info) for batch in rows.to_batches()]).float()


def _recall(found: list[Ranking], exact: list[Ranking]) -> float:
    """Share of the exact nearest that were found; the item itself, which comes first, does not count."""
    hits = total = 0
    for some, all_ in zip(found, exact, strict=True):
        wanted = {path for path, _ in all_[1:]}
        hits += len(wanted & {path for path, _ in some})
        total += len(wanted)
    return hits / max(1, total)
