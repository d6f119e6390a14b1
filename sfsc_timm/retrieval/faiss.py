"""Approximate search of large galleries through FAISS, an extra: `pip install 'sfsc-timm[faiss]'`."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import replacing
from ..evaluation.scores import Distance, centre_of, centred, check_embeddings

# Training vectors per list, k-means' own recommendation being 39 to 256.
_TRAIN_PER_LIST = 40


class FaissIndex:
    """Inverted-file index: the gallery is split into lists around centroids, and a query visits the nearest ones.

    Exact within the lists it visits; :func:`search` is exact throughout.

    Args:
        gallery: Gallery embeddings, shape `(N, D)`.
        distance: 'cosine' or 'euclidean'.
        lists: Number of lists; None takes 4 times the square root of N (at most N / 40).

    Raises:
        ImportError: FAISS is not installed.
        ValueError: Bad embeddings or options.
    """

    def __init__(self, gallery: Tensor, distance: Distance = 'cosine', *, lists: int | None = None) -> None:
        check_embeddings(gallery, 'gallery', len(gallery))
        faiss = _faiss()
        size, self.dim = gallery.shape
        self.distance: Distance = distance
        self._centre = centre_of(gallery, distance)
        self._whole: Any = None
        lists = lists or max(1, min(round(4 * sqrt(size)), size // _TRAIN_PER_LIST))
        metric = faiss.METRIC_INNER_PRODUCT if distance == 'cosine' else faiss.METRIC_L2
        self.index = faiss.index_factory(self.dim, f'IVF{lists},Flat', metric)
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(size, generator=generator)[: _TRAIN_PER_LIST * lists].sort().values
        self.index.train(self._prepare(gallery[sample]))
        for part in gallery.split(1 << 16):
            self.index.add(self._prepare(part))

    def search(self, query: Tensor, k: int, *, probes: int = 32) -> tuple[Tensor, Tensor]:
        """Find about the k nearest items; arguments and results as in :func:`search`.

        Args:
            query: Query embeddings, shape `(Nq, D)`.
            k: How many items; missing ones have index -1 and score -inf.
            probes: Lists to visit: more is slower and nearer to exact.
        """
        check_embeddings(query, 'query', len(query))
        if query.shape[1] != self.dim:
            raise ValueError(f'query embeddings have {query.shape[1]} numbers, the index holds {self.dim}.')
        if k < 1 or probes < 1:
            raise ValueError(f'k and probes must be at least 1, got {k} and {probes}.')
        self.index.nprobe = probes
        values, items = (torch.from_numpy(array) for array in self.index.search(self._prepare(query), k))
        scores = values if self.distance == 'cosine' else -values.clamp_(min=0).sqrt_()
        return scores.masked_fill_(items < 0, -torch.inf), items

    def save(self, path: str | Path) -> None:
        """Write the index in one step; FAISS reads it too."""
        faiss = _faiss()
        index = self.index
        if self._centre is not None:
            transform = faiss.CenteringTransform(self.dim)
            faiss.copy_array_to_vector(self._centre.numpy(), transform.mean)
            transform.is_trained = True
            index = faiss.IndexPreTransform(transform, self.index)
        with replacing(Path(path)) as temporary:
            faiss.write_index(index, str(temporary))

    @classmethod
    def load(cls, path: str | Path) -> FaissIndex:
        """Read what :meth:`save` wrote. FAISS trusts its files: read only what you wrote, or see `indexed`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such index.
        """
        faiss = _faiss()
        if not Path(path).is_file():
            raise FileNotFoundError(f'no FAISS index at {str(path)!r}; build one with FaissIndex(gallery).save(path).')
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f'{str(path)!r} is no FAISS index ({str(error).splitlines()[-1]}); build it.') from error
        self = cls.__new__(cls)
        self._centre, self._whole = None, None
        if isinstance(index, faiss.IndexPreTransform):
            mean = faiss.vector_to_array(faiss.downcast_VectorTransform(index.chain.at(0)).mean)
            self._centre = torch.from_numpy(mean.copy())
            self._whole = index  # which owns the part that is searched
            index = faiss.downcast_index(index.index)
        if not isinstance(index, faiss.IndexIVF):
            raise ValueError(f'{str(path)!r} holds a {type(index).__name__}, no index of FaissIndex.save; build it.')
        self.index = index
        self.dim = index.d
        self.distance = 'cosine' if index.metric_type == faiss.METRIC_INNER_PRODUCT else 'euclidean'
        return self

    def _prepare(self, embeddings: Tensor) -> Any:
        embeddings = centred(embeddings.cpu(), self._centre)
        if self.distance == 'cosine':
            embeddings = torch.nn.functional.normalize(embeddings, dim=1)
        return embeddings.contiguous().numpy()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("an approximate index needs FAISS: pip install 'sfsc-timm[faiss]'") from error
    return faiss
