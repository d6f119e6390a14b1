"""A gallery of embeddings on disk: written in whole shards, resumable, bound to the metric space it came from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import write_json
from ..evaluation.scores import Distance
from .blockwise import Ranking
from .codes import encoded
from .funnel import Scan, Shortlist
from .info import GalleryInfo, IncompatibleGalleryError
from .lock import exclusive
from .manifest import MANIFEST, Entry, read_manifest, shard_name, write_manifest
from .rewriting import labelled, without
from .scales import Scales
from .scans import decoded, make_scan
from .shards import FileState, Shard, read_shard, write_shard
from .store import Existing, Labels, Records, Store

__all__ = ['Existing', 'Gallery', 'GalleryInfo', 'IncompatibleGalleryError']

# Shards, and what a process that was killed while it wrote leaves behind.
_OURS = re.compile(r'\d{5,}\.safetensors|\.(\d{5,}\.safetensors|manifest\.json)\.\d+\.tmp')


class Gallery(Store):
    """Folder of `manifest.json` and shards `00000.safetensors`, ... that hold embeddings and the paths they belong to.

    A change writes its shards under temporary names, renames them, and only then enters them in the manifest, which is
    replaced in one step too. An interruption at any point leaves the gallery as it was before that change; the next one
    sweeps what was left over. Any number of processes may read and write at once: writers wait for each other, and
    each begins from what the others have written. (A reader whose shard is dropped meanwhile is told that it is
    missing, and opens the gallery again.)

    Opening reads everything once: types, shapes, counts and SHA-256 of every shard are those that were written,
    embeddings are finite, and no path occurs twice (about a second for 100,000 items of 256 numbers). A gallery of
    before there were digests and space ids opens too; its shards are checked for everything else, and it gets digests
    with the next change.

    Args:
        folder: The gallery's folder; :meth:`create` makes one.

    Attributes:
        folder: The folder.
        info: What it was embedded by.
        scales: Of a gallery of codes; None before there is any, and in one of floats.

    Raises:
        FileNotFoundError: No gallery there, or a shard is missing.
        ValueError: The manifest is not one, or of a newer format, or a shard is damaged; the message names the file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._shards: tuple[Shard, ...] = ()
        self.scales: Scales | None = None
        self._refresh()

    @classmethod
    def create(cls, folder: str | Path, info: GalleryInfo) -> Gallery:
        """Make an empty gallery, or open the one that is there if it was embedded in the same way (to resume).

        Raises:
            IncompatibleGalleryError: There is one already, embedded differently.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).is_file():
            with exclusive(folder):
                if not (folder / MANIFEST).is_file():  # another process may have made it meanwhile
                    write_manifest(folder, info, [])
        gallery = cls(folder)
        gallery.checked_like(info)
        return gallery

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def columns(self) -> tuple[str, ...]:
        """The identity, where it was noted of any item; it keeps no other labels."""
        return ('identity',) if any(identity is not None for identity in self.identities) else ()

    def __len__(self) -> int:
        return sum(shard.count for shard in self._shards)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Path of every item, in order."""
        return tuple(path for shard in self._shards for path in shard.paths)

    @cached_property
    def states(self) -> tuple[FileState | None, ...]:
        """What the file of every item was like when it was embedded, in order; None where that was not noted."""
        return tuple(state for shard in self._shards for state in shard.states)

    @cached_property
    def identities(self) -> tuple[str | None, ...]:
        """Who or what every item shows, in order; None where that was not noted."""
        return tuple(identity for shard in self._shards for identity in shard.identities)

    @property
    def content_id(self) -> str:
        """Identifies all that the gallery holds, items and embeddings in their order: 64 hexadecimal digits."""
        listed = f'{self.info.dtype} {self.info.embed_dim} ' + ' '.join(shard.sha256 for shard in self._shards)
        listed += f' {self.scales.digest}' if self.scales is not None else ''
        return hashlib.sha256(listed.encode()).hexdigest()

    def embeddings(self) -> Tensor:
        """All embeddings, in order, in the stored type (of codes, what they stand for), shape `(N, D)`."""
        result = torch.empty(len(self), self.info.embed_dim, dtype=self.info.float_type)
        begin = 0
        for shard in self._shards:  # one after the other into place, so that no second copy of everything is made
            result[begin : begin + shard.count] = decoded(self.folder, shard, self.info, self.scales)
            begin += shard.count
        return result

    def files(self) -> Iterator[tuple[str, FileState | None]]:
        """Path and state of every item, in order."""
        return zip(self.paths, self.states, strict=True)

    def records(self) -> Iterator[Records]:
        """All that the gallery holds, a shard at a time."""
        for shard in self._shards:
            labels = dict.fromkeys(self.columns, shard.identities)
            tensor = decoded(self.folder, shard, self.info, self.scales)
            yield Records(shard.paths, tensor, shard.states, (self.info.width,) * shard.count, labels)

    def blocks(self, where: str | None = None) -> Iterator[tuple[Sequence[str], Tensor]]:
        """Paths and embeddings, a shard at a time; it has no columns by which to choose."""
        if where is not None:
            raise ValueError(
                f'--where needs a gallery with columns, got {self.location!r}, which has none; make a Lance gallery '
                'of it by `sfsc-timm gallery convert`, or index the images again by --store lance'
            )
        return ((part.paths, part.embeddings) for part in self.records())

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        distance: Distance = 'cosine',
        where: str | None = None,
        shortlist: Shortlist | None = None,
    ) -> list[Ranking]:
        """Paths and scores of the nearest items of each query; see `Store.search`.

        Every item is compared, in a binary gallery by its bits and the nearest hundred, or thousandth of all, by their
        codes.

        Args:
            query: Query embeddings, shape `(Nq, D)`.
            k: How many items, at least 1.
            distance: 'cosine' or 'euclidean'.
            where: None; there are no columns by which to choose.
            shortlist: Compare all items by less, and only the nearest of these in full.

        Raises:
            ValueError: Embeddings, `k` or the shortlist do not fit.
        """
        if where is not None:
            self.blocks(where)
        scores, items = self.scan(shortlist)(query, min(k, len(self)), distance)
        rows = zip(items.tolist(), scores.tolist(), strict=True)
        return [[(self.paths[i], score) for i, score in zip(*row, strict=True)] for row in rows]

    def note(self, name: str) -> bytes | None:
        """What the file of that name in the folder holds."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def set_note(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes the file of that name in the folder."""
        write_json(self.folder / name, values)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that are not in the gallery yet, in their order: what is left to embed after a break."""
        return [path for path in paths if path not in self._present]

    def append(
        self,
        paths: Sequence[str],
        embeddings: Tensor,
        states: Sequence[FileState | None] | None = None,
        existing: Existing = 'refuse',
        labels: Labels | None = None,
    ) -> None:
        """Add items, all or none of them; see `Store.append`."""
        stored, notes = self._stored(paths, embeddings, states, existing)
        with exclusive(self.folder):
            self._refresh()
            chosen = [i for i, path in enumerate(paths) if existing == 'replace' or path not in self._present]
            if len(set(paths)) != len(paths) or (existing == 'refuse' and len(chosen) != len(paths)):
                raise ValueError(
                    'paths holds an item twice, or one that is in the gallery already; use missing(paths).'
                )
            if not chosen:
                return
            kept = self._shards
            if existing == 'replace':
                kept = without(self.folder, kept, self.info, set(paths))
            name = shard_name((*self._shards, *kept))
            shown = self._identities_of(paths, labels or {})
            tensor, self.scales = encoded(stored[chosen], self.info, self.scales, self.location)
            columns = [paths[i] for i in chosen], [notes[i] for i in chosen]
            bits, shown = self.info.dtype == 'binary', [shown[i] for i in chosen]
            new = write_shard(self.folder, name, *columns, tensor, shown, bits=bits)
            self._commit((*kept, new))

    def label(self, paths: Sequence[str], labels: Labels) -> None:
        """Notes other identities of items that are there, all or none of them; it keeps no other labels.

        Raises:
            TimeoutError: Another process does not stop writing.
        """
        with exclusive(self.folder):
            self._refresh()
            pairs = zip(paths, labels.get('identity', ()), strict=False)
            new = {path: text for path, text in pairs if text is not None}
            self._commit(labelled(self.folder, self._shards, self.info, new))

    def remove(self, paths: Collection[str]) -> None:
        """Drop items, all or none of them; those that are not in the gallery are passed over."""
        with exclusive(self.folder):
            self._refresh()
            self._commit(without(self.folder, self._shards, self.info, set(paths)))

    def scan(self, shortlist: Shortlist | None = None) -> Scan:
        """What searches the items as they are now, from memory: for many searches.

        Called with queries `(Nq, D)`, k and a distance, it gives scores and items as `retrieval.search` does.
        """
        return make_scan(self.folder, self._shards, self.info, self.scales, shortlist)

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(self.paths)

    def _refresh(self) -> None:
        """Takes over what other processes have written."""
        manifest = read_manifest(self.folder)
        known = {(shard.file, shard.sha256): shard for shard in self._shards}
        self.info, self.scales = manifest.info, manifest.scales
        self._take(tuple(self._opened(entry, known) for entry in manifest.shards))

    def _opened(self, entry: Entry, known: dict[tuple[str, str], Shard]) -> Shard:
        shard = known.get((entry.file, entry.sha256 or ''))
        return shard or read_shard(self.folder, entry.file, entry.count, entry.sha256, self.info)

    def _take(self, shards: tuple[Shard, ...]) -> None:
        if shards == self._shards:
            return
        seen: set[str] = set()
        for shard in shards:
            before = len(seen)
            seen.update(shard.paths)
            if len(seen) - before != shard.count:
                raise ValueError(
                    f'{str(self.folder / shard.file)!r} is no shard of this gallery: it holds a path twice, or one '
                    'that another shard holds; restore it, or build the gallery again.'
                )
        self._shards = shards
        for name in ('paths', 'states', 'identities', '_present'):
            self.__dict__.pop(name, None)

    def _identities_of(self, paths: Sequence[str], labels: Labels) -> list[str | None]:
        """Those that are given, and where none is given, those that are noted."""
        given = labels.get('identity', [None] * len(paths))
        known = dict(zip(self.paths, self.identities, strict=True)) if self.columns else {}
        return [known.get(path) if text is None else text for path, text in zip(paths, given, strict=True)]

    def _commit(self, shards: tuple[Shard, ...]) -> None:
        """Makes the shards the gallery's content, then deletes files that are not part of it."""
        write_manifest(self.folder, self.info, shards, self.scales)
        self._take(shards)
        listed = {shard.file for shard in shards}
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in listed:
                path.unlink(missing_ok=True)
