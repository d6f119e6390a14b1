"""A gallery as a Lance table: transactional, versioned, filtered by its columns, in a folder or at s3://..."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from torch import Tensor

from ...evaluation.scores import Distance
from ..blockwise import Ranking
from ..info import GalleryInfo
from ..lock import exclusive
from ..shards import FileState
from ..store import Existing, Labels, Records
from .index import Ann, nearest
from .kept import PATIENCE, KeptTable
from .roots import from_key, to_key
from .table import FILE, TABLE, column_of, connect, is_remote, make_schema, to_arrow, to_states, to_tensor

__all__ = ['LanceGallery']


class LanceGallery(KeptTable):
    """Table `items` of a LanceDB database in a folder, or at an address such as `s3://bucket/gallery`.

    Each change is one transaction of Lance, and a new version of the table: an interruption at any point leaves it as
    it was before. Writers of one machine wait for each other; writers of an address meet in Lance's own commits, which
    compare the paths that were added and try again. Data files that a killed process left are never read;
    :meth:`tidy` removes them with versions of more than a week ago.

    Paths are kept relative to the root in the table's metadata; what is read and written here are whole paths.

    Args:
        location: Folder or address; :meth:`create` makes one.
        root: Where the root lies on this machine; None takes the one that is noted.

    Raises:
        FileNotFoundError: No such gallery there.
        ValueError: The table is no gallery.
        ImportError: LanceDB is not installed.
    """

    @classmethod
    def create(
        cls, location: str | Path, info: GalleryInfo, *, root: str = '', columns: Collection[str] = ()
    ) -> LanceGallery:
        """Make an empty gallery, or open the one that is there if it was embedded in the same way (to resume).

        Args:
            location: Folder or address.
            info: What embeds it.
            root: The folder that paths are relative to; where a gallery is there already, where that one's root lies
                on this machine. '' keeps paths as they are given, or takes the root that is noted.
            columns: Labels to keep of the items; those that a gallery does not have yet are added.

        Raises:
            IncompatibleGalleryError: There is one already, embedded differently.
            ValueError: A label cannot be kept under that name.
        """
        schema = make_schema(info, root, columns)
        if not is_remote(location):
            Path(location).mkdir(parents=True, exist_ok=True)
        with nullcontext() if is_remote(location) else exclusive(Path(location), PATIENCE):
            try:
                cls(location)
            except FileNotFoundError:
                connect(str(location)).create_table(TABLE, schema=schema, exist_ok=True)
        gallery = cls(location, root or None)
        gallery.checked_like(info)
        gallery.add_columns(columns)
        return gallery

    @property
    def paths(self) -> tuple[str, ...]:
        """Path of every item, in order; see `files` for very many."""
        return tuple(path for path, _ in self.files())

    def files(self) -> Iterator[tuple[str, FileState | None]]:
        """Path and state of every item, in order."""
        root = self.root
        for batch in self._scan(['path', *FILE]):
            keys = batch.column('path').to_pylist()
            yield from zip((from_key(key, root) for key in keys), to_states(batch), strict=True)

    def blocks(self, where: str | None = None) -> Iterator[tuple[Sequence[str], Tensor]]:
        """Paths and embeddings of all items, or of those of a condition (see `sfsc_timm.retrieval.where`)."""
        condition, root = self._condition(where), self.root
        for batch in self._scan(['path', column_of(self.info.embed_dim)], condition):
            keys = batch.column('path').to_pylist()
            yield [from_key(key, root) for key in keys], to_tensor(batch, self.info)

    def records(self) -> Iterator[Records]:
        """All that the gallery holds, in order."""
        names, root = self.columns, self.root
        for batch in self._scan(['path', column_of(self.info.embed_dim), 'width', *FILE, *names]):
            yield Records(
                tuple(from_key(key, root) for key in batch.column('path').to_pylist()),
                to_tensor(batch, self.info),
                tuple(to_states(batch)),
                tuple(batch.column('width').to_pylist()),
                {name: batch.column(name).to_pylist() for name in names},
            )

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that are not in the gallery yet, in their order."""
        root = self.root
        wanted = {to_key(path, root): path for path in paths}
        for batch in self._scan(['path']):
            for key in batch.column('path').to_pylist():
                wanted.pop(key, None)
        return list(wanted.values())

    def append(
        self,
        paths: Sequence[str],
        embeddings: Tensor,
        states: Sequence[FileState | None] | None = None,
        existing: Existing = 'refuse',
        labels: Labels | None = None,
        widths: Sequence[float] | None = None,
    ) -> None:
        """Add items, all or none of them; see `Store.append`.

        Args:
            paths: Path of each item.
            embeddings: Shape `(N, D)`.
            states: What the items' files were like.
            existing: What to do with items that are there already.
            labels: Texts by column; columns that the gallery does not keep are left out. Where none is given, an item
                that is replaced keeps the one that it has.
            widths: Width that embedded each; None is the gallery's.
        """
        stored, notes = self._stored(paths, embeddings, states, existing)
        width = [self.info.width] * len(paths) if widths is None else list(widths)
        keys = self._keys(paths)
        twice = len(set(keys)) != len(keys)
        with self._writing():
            # Writers of an address do not wait for each other; there the merge itself looks at what is there.
            look = existing == 'refuse' or (existing == 'skip' and self._folder is not None)
            there = self._present(keys) if look else set()
            if twice or (existing == 'refuse' and there):
                raise ValueError(
                    'paths holds an item twice, or one that is in the gallery already; use missing(paths).'
                )
            chosen = [i for i, key in enumerate(keys) if key not in there]
            if not chosen:
                return
            texts = self._kept(keys, labels or {}) if existing == 'replace' else labels or {}
            rows = to_arrow(self.table.schema, self.info, keys, stored, notes, width, texts)
            if existing != 'replace' and self._folder is not None:
                self.table.add(rows.take(chosen))  # keeps their order, which a merge does not
                return
            # Without the index of paths, if someone made one: with it, matches have been missed (lancedb 3177, 3515).
            merge = self.table.merge_insert('path').when_not_matched_insert_all().use_index(False)
            if existing == 'replace':
                merge = merge.when_matched_update_all()
            merge.execute(rows)

    def label(self, paths: Sequence[str], labels: Labels) -> None:
        """Writes other texts into columns of items that are there; other items are passed over."""
        import pyarrow as pa

        keys = self._keys(paths)
        with self._writing():
            fields = [self.table.schema.field(name) for name in ('path', *labels)]
            rows = pa.table([keys, *(list(texts) for texts in labels.values())], schema=pa.schema(fields))
            self.table.merge_insert('path').when_matched_update_all().use_index(False).execute(rows)

    def remove(self, paths: Collection[str]) -> None:
        """Drop items, all or none of them; those that are not in the gallery are passed over."""
        keys = self._keys(paths)
        if keys:
            with self._writing():
                self.table.delete(next(_among(keys, len(keys))))

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        distance: Distance = 'cosine',
        where: str | None = None,
        ann: Ann | None = None,
        exact: bool = False,
    ) -> list[Ranking]:
        """Paths and scores of the nearest items; through the index if there is one of this distance.

        Args:
            query: Query embeddings, shape `(Nq, D)`.
            k: How many items, at least 1.
            distance: 'cosine' or 'euclidean'.
            where: Only among the items of this condition.
            ann: How to use the index; None as was found when it was built.
            exact: Compare with every item.
        """
        ann = ann or self.ann
        if exact or ann is None or distance != 'cosine':
            return super().search(query, k, distance=distance, where=where)
        root = self.root
        found = nearest(self.table, column_of(self.info.embed_dim), query, k, ann, self._condition(where))
        return [[(from_key(key, root), score) for key, score in row] for row in found]

    def _keys(self, paths: Iterable[str]) -> list[str]:
        root = self.root  # which is read from the table
        return [to_key(path, root) for path in paths]

    def _present(self, keys: Sequence[str]) -> set[str]:
        """Those of some keys that are in the gallery."""
        batches = chain.from_iterable(self._scan(['path'], some) for some in _among(keys))
        return {key for batch in batches for key in batch.column('path').to_pylist()}

    def _kept(self, keys: Sequence[str], labels: Labels) -> Labels:
        """Labels of items that are replaced: the new ones, and those of before where there is no new one."""
        names = self.columns
        places = {key: i for i, key in enumerate(keys)}
        nothing = [None] * len(keys)
        texts: dict[str, list[str | None]] = {name: list(labels.get(name, nothing)) for name in names}
        for batch in chain.from_iterable(self._scan(['path', *names], some) for some in _among(keys)) if names else ():
            for row, key in enumerate(batch.column('path').to_pylist()):
                if (i := places.get(key)) is not None:
                    for name in names:
                        if texts[name][i] is None:
                            texts[name][i] = batch.column(name)[row].as_py()
        return texts


def _among(keys: Sequence[str], at_once: int = 5000) -> Iterator[str]:
    """Conditions for rows of these keys."""
    for begin in range(0, len(keys), at_once):
        listed = ', '.join("'" + key.replace("'", "''") + "'" for key in keys[begin : begin + at_once])
        yield f'path IN ({listed})'
