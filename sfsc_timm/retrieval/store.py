"""What a gallery is, wherever it is kept: items with embeddings, bound to a metric space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..evaluation.scores import Distance, check_embeddings
from .blockwise import Ranking, search_blocks
from .info import GalleryInfo, IncompatibleGalleryError
from .shards import FileState
from .sizes import words_on_sizes

__all__ = ['Existing', 'Labels', 'Records', 'Store']

Existing = Literal['refuse', 'skip', 'replace']
Labels = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Records:
    """Some items of a gallery, with all that it knows of them.

    Attributes:
        paths: Path of each of N items.
        embeddings: In the stored type, shape `(N, D)`.
        states: What the items' files were like when they were embedded; None where that was not noted.
        widths: Width that embedded each.
        labels: Further columns, such as identity and camera: N texts each, None where there is none.
    """

    paths: tuple[str, ...]
    embeddings: Tensor
    states: tuple[FileState | None, ...]
    widths: tuple[float, ...]
    labels: Labels = field(default_factory=dict)


class Store(ABC):
    """A gallery: the interface of :class:`Gallery` (safetensors) and :class:`LanceGallery`.

    Attributes:
        info: What it was embedded by.
    """

    info: GalleryInfo

    @property
    @abstractmethod
    def location(self) -> str:
        """Folder or address of the gallery."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of the labels that it keeps of its items."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def files(self) -> Iterator[tuple[str, FileState | None]]:
        """Path of every item, in order, and what its file was like when it was embedded."""

    @abstractmethod
    def blocks(self, where: str | None = None) -> Iterator[tuple[Sequence[str], Tensor]]:
        """Paths and embeddings `(n, D)` of all items, in order, some thousands at a time.

        Args:
            where: Only the items for which this expression is true.

        Raises:
            ValueError: The expression is none, or speaks of what the gallery does not keep.
        """

    @abstractmethod
    def records(self) -> Iterator[Records]:
        """All that the gallery holds, in order, some thousands of items at a time."""

    @abstractmethod
    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that are not in the gallery yet, in their order: what is left to embed after a break."""

    @abstractmethod
    def append(
        self,
        paths: Sequence[str],
        embeddings: Tensor,
        states: Sequence[FileState | None] | None = None,
        existing: Existing = 'refuse',
        labels: Labels | None = None,
    ) -> None:
        """Add items, all or none of them.

        Args:
            paths: Path of each item.
            embeddings: Embeddings at the gallery's width, shape `(N, D)`.
            states: What the items' files were like before they were read; None does not note it.
            existing: What to do with items that are in the gallery already: 'refuse' all, 'skip' those, or 'replace'
                them, in the same step.
            labels: Further columns; a store without any leaves them out.

        Raises:
            ValueError: Shapes that do not fit, NaN, a path twice, or numbers beyond the stored type.
            TimeoutError: Another process does not stop writing.
        """

    @abstractmethod
    def remove(self, paths: Collection[str]) -> None:
        """Drop items, all or none of them; those that are not in the gallery are passed over.

        Raises:
            TimeoutError: Another process does not stop writing.
        """

    @abstractmethod
    def note(self, name: str) -> bytes | None:
        """What was noted beside the items under a name, as JSON, unchecked; None if nothing was."""

    @abstractmethod
    def set_note(self, name: str, values: Mapping[str, Any]) -> None:
        """Notes something beside the items."""

    def search(
        self, query: Tensor, k: int, *, distance: Distance = 'cosine', where: str | None = None
    ) -> list[Ranking]:
        """Paths and scores of the nearest items of each query, best first.

        Args:
            query: Query embeddings, shape `(Nq, D)`.
            k: How many items, at least 1; fewer come where there are fewer.
            distance: 'cosine' or 'euclidean', scores being cosine similarity or *negative* Euclidean distance.
            where: Only among the items for which this expression is true.

        Raises:
            ValueError: Embeddings, `k` or the expression do not fit.
        """
        return search_blocks(query, self.blocks(where), k, distance)

    def check(
        self, compatibility_id: str, embed_dim: int | None = None, *, space_id: str = '', force: bool = False
    ) -> None:
        """Refuse queries from another metric space; see `GalleryInfo.shares_space`.

        Args:
            compatibility_id: The queries' checkpoint, all its weights.
            embed_dim: Numbers per query embedding; None does not check it.
            space_id: The metric space of the queries.
            force: Accept another metric space all the same (another number of dimensions cannot be forced).

        Raises:
            IncompatibleGalleryError: With the reason.
        """
        is_one_space = self.info.shares_space(compatibility_id, space_id)
        if embed_dim is not None and embed_dim != self.info.embed_dim:
            raise IncompatibleGalleryError(
                f'query embeddings have {embed_dim} numbers, those of gallery {self.location!r} '
                f'{self.info.embed_dim}: {words_on_sizes(embed_dim, self.info.embed_dim, is_one_space)}'
            )
        if not is_one_space and not force:
            raise IncompatibleGalleryError(
                f'gallery {self.location!r} was embedded by {self.info.model} at width {self.info.width:g} '
                f'({_ids(self.info.compatibility_id, self.info.space_id)}), the queries come from '
                f'{_ids(compatibility_id, space_id)}. Distances between different metric spaces mean nothing. Embed '
                'the queries by a width of the same checkpoint, index the gallery again, or force it if you know '
                'better.'
            )

    def checked_like(self, info: GalleryInfo) -> None:
        """Refuses to be added to by another embedder.

        Raises:
            IncompatibleGalleryError: Embeddings made by `info` do not belong here.
        """
        if not self.info.embeds_like(info):
            raise IncompatibleGalleryError(
                f'{self.location!r} already holds a gallery embedded by {self.info}, not by {info}; '
                'choose another folder.'
            )

    def _stored(
        self, paths: Sequence[str], embeddings: Tensor, states: Sequence[FileState | None] | None, existing: Existing
    ) -> tuple[Tensor, list[FileState | None]]:
        """Checks the arguments of `append`; the embeddings as they are stored, and a state or None of each."""
        if existing not in get_args(Existing):
            raise ValueError(f'existing must be one of {get_args(Existing)}, got {existing!r}.')
        check_embeddings(embeddings, 'gallery', len(paths))
        if embeddings.shape[1] != self.info.embed_dim:
            raise ValueError(f'embeddings have {embeddings.shape[1]} numbers, the gallery holds {self.info.embed_dim}.')
        notes: list[FileState | None] = [None] * len(paths) if states is None else list(states)
        if len(notes) != len(paths):
            raise ValueError(f'states must be one of each path, got {len(notes)} for {len(paths)}.')
        stored = embeddings.detach().cpu().to(self.info.float_type).contiguous()
        if not torch.isfinite(stored).all():
            raise ValueError(f'embeddings are too large for {self.info.dtype}; normalise them or store float32.')
        return stored, notes


def _ids(compatibility_id: str, space_id: str) -> str:
    return f'compatibility id {compatibility_id}' + (f', space id {space_id}' if space_id else '')
