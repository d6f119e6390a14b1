"""Which gallery items are relevant to a query and which do not take part: Market-1501's protocol, self-retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..data import RetrievalData

Labels = Sequence[int] | np.ndarray | Tensor


class GroundTruth:
    """Identities and cameras of a query and a gallery set, arranged for evaluation in blocks of queries.

    A gallery item is *relevant* to a query when both show the same identity. It is *junk*, and left out for that
    query as if it were not in the gallery, when it also comes from the query's camera (Zheng et al., "Scalable Person
    Re-identification: A Benchmark", ICCV 2015, section 3.3) or, in self-retrieval, when it is the query itself.
    Everything else is a non-match, and so is every item with a negative identity (distractors).
    A query without any relevant item left has no average precision: it is not evaluated, and counted in `skipped`.

    Args:
        query_ids: Identities of the queries, integers, shape `(Nq,)`.
        gallery_ids: Identities of the gallery items, integers, shape `(Ng,)`.
        query_cameras: Cameras of the queries, shape `(Nq,)`, or None for a data set without cameras.
        gallery_cameras: Cameras of the gallery items, shape `(Ng,)`; given exactly when `query_cameras` is.
        same_set: Query i and gallery item i are the same image, so that it is junk for itself.

    Attributes:
        evaluated: Indices of the queries with at least one relevant item, ordered by how many they have, so that
            a block of consecutive ones needs little padding; shape `(Nq - skipped,)`.
        num_relevant: Number of relevant items of every query, shape `(Nq,)`.

    Raises:
        ValueError: Labels that are not one-dimensional integers, lengths that do not fit, cameras on one side only,
            or no query at all with a relevant item.
    """

    def __init__(
        self,
        query_ids: Labels,
        gallery_ids: Labels,
        query_cameras: Labels | None = None,
        gallery_cameras: Labels | None = None,
        *,
        same_set: bool = False,
    ) -> None:
        self.query_ids = _as_labels(query_ids, 'query_ids')
        self.gallery_ids = _as_labels(gallery_ids, 'gallery_ids')
        if (query_cameras is None) != (gallery_cameras is None):
            given, missing = ('query', 'gallery') if gallery_cameras is None else ('gallery', 'query')
            raise ValueError(
                f'{missing}_cameras is None but {given}_cameras is given. Give cameras for both sets (the same-camera '
                'filter of Market-1501) or for neither.'
            )
        self.query_cameras = _as_cameras(query_cameras, 'query_cameras', self.query_ids)
        self.gallery_cameras = _as_cameras(gallery_cameras, 'gallery_cameras', self.gallery_ids)
        if same_set and not torch.equal(self.query_ids, self.gallery_ids):
            raise ValueError('same_set=True needs query_ids equal to gallery_ids, item by item; they differ.')
        self.same_set = same_set

        self._order = torch.argsort(self.gallery_ids, stable=True)
        by_identity = self.gallery_ids[self._order]
        self._start = torch.searchsorted(by_identity, self.query_ids)
        self._length = torch.searchsorted(by_identity, self.query_ids, right=True) - self._start
        self.num_relevant = (self._length - self._count_junk()).masked_fill_(self.query_ids < 0, 0)
        by_count = torch.argsort(self.num_relevant, stable=True)
        self.evaluated = by_count[self.num_relevant[by_count] > 0]
        if len(self.evaluated) == 0:
            raise ValueError(
                f'None of the {len(self.query_ids)} queries has a relevant item among the {len(self.gallery_ids)} '
                'gallery items once same-camera items (or the query itself) are left out. Check that both sets use '
                'the same identity numbers, and cameras that differ.'
            )

    @classmethod
    def self_retrieval(cls, ids: Labels, cameras: Labels | None = None) -> GroundTruth:
        """Ground truth of a set that is query and gallery at once (CUB-200-2011, Stanford Online Products)."""
        return cls(ids, ids, cameras, cameras, same_set=True)

    @classmethod
    def of(cls, data: RetrievalData) -> GroundTruth:
        """Ground truth of a benchmark, with the protocol that it declares (cameras, shared query and gallery)."""
        labels = [[sample.identity for sample in samples] for samples in (data.query, data.gallery)]
        cameras = [[sample.camera for sample in samples] for samples in (data.query, data.gallery)]
        return cls(*labels, *(cameras if data.cameras else ()), same_set=data.shared)

    @property
    def skipped(self) -> int:
        """Number of queries that are not evaluated because no relevant item is left for them."""
        return len(self.query_ids) - len(self.evaluated)

    def matches(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gallery items with the identity of each query, padded to the longest list.

        Args:
            queries: Indices of B queries, shape `(B,)`.

        Returns:
            Gallery indices `(B, L)`, and two boolean masks `(B, L)` over them: relevant, and junk. Padding is in
            neither; its index is valid but means nothing.
        """
        length = self._length[queries, None]
        offset = torch.arange(int(length.max()))
        columns = self._order[(self._start[queries, None] + offset).clamp_(max=len(self._order) - 1)]
        present = offset < length
        junk = torch.zeros_like(present)
        if self.query_cameras is not None and self.gallery_cameras is not None:
            junk |= self.gallery_cameras[columns] == self.query_cameras[queries, None]
        if self.same_set:
            junk |= columns == queries[:, None]
        return columns, present & ~junk, present & junk

    def _count_junk(self) -> Tensor:
        """Junk items of every query, `(Nq,)`, by counting equal (identity, camera) pairs."""
        if self.query_cameras is None or self.gallery_cameras is None:
            return torch.full_like(self.query_ids, int(self.same_set))
        ids = torch.unique(torch.cat([self.query_ids, self.gallery_ids]), return_inverse=True)[1]
        cameras, camera = torch.unique(torch.cat([self.query_cameras, self.gallery_cameras]), return_inverse=True)
        pair = ids * len(cameras) + camera
        query, gallery = pair[: len(self.query_ids)], pair[len(self.query_ids) :].sort().values
        return torch.searchsorted(gallery, query, right=True) - torch.searchsorted(gallery, query)


def _as_labels(values: Labels, name: str) -> Tensor:
    labels = torch.as_tensor(values).cpu()
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f'{name} must be one-dimensional integers, got shape {tuple(labels.shape)}, {labels.dtype}.')
    if len(labels) == 0:
        raise ValueError(f'{name} is empty; an evaluation needs at least one query and one gallery item.')
    return labels.long()


def _as_cameras(values: Labels | None, name: str, identities: Tensor) -> Tensor | None:
    if values is None:
        return None
    cameras = _as_labels(values, name)
    if len(cameras) != len(identities):
        raise ValueError(
            f'{name} has {len(cameras)} entries but there are {len(identities)} identities; give one each.'
        )
    return cameras
