"""The table of a Lance gallery between calls: who writes, what its metadata say, and how rows are read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..lock import exclusive
from ..store import Store
from ..where import compile_where
from .index import Ann
from .table import TABLE, column_of, connect, is_remote, is_table, kinds_of, labels_of, read_info

__all__ = ['PATIENCE', 'KeptTable']

PATIENCE = 600.0  # seconds to wait for another writer, which may be tidying a large table
_ROWS = 32768  # of a block
_ANN = 'ann'


class KeptTable(Store):
    """What :class:`LanceGallery` is made on; see there."""

    def __init__(self, location: str | Path, root: str | None = None) -> None:
        self._location = str(location)
        self._folder = None if is_remote(location) else Path(location)
        absent = FileNotFoundError(f'no gallery in {self._location!r}: it has no table {TABLE!r}; create one first.')
        if not is_table(location):
            raise absent
        try:
            self.table = connect(self._location).open_table(TABLE)
        except ValueError as error:
            if 'not found' not in str(error):
                raise
            raise absent from error
        self.info = read_info(self._location, self.table.schema)
        self._root = root

    @property
    def location(self) -> str:
        """The folder or address."""
        return self._location

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its labels."""
        return labels_of(self.table.schema)

    @property
    def root(self) -> str:
        """What paths are relative to, on this machine; '' if they are kept as they are."""
        noted = (self.table.schema.field('path').metadata or {}).get(b'root', b'').decode()
        return noted if self._root is None or not noted else self._root

    @property
    def version(self) -> int:
        """Number of the table's version: every change makes a new one."""
        return int(self.table.version)

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def move(self, root: str) -> None:
        """Notes another root, below which the same files lie now."""
        self._annotate('path', 'root', root)
        self._root = None

    @property
    def ann(self) -> Ann | None:
        """How the index is to be searched; None if there is none."""
        content = self.note(_ANN)
        return None if content is None else Ann.from_dict(json.loads(content))

    @ann.setter
    def ann(self, ann: Ann | None) -> None:
        self.set_note(_ANN, {} if ann is None else ann.to_dict())

    def tidy(self, *, keep_days: float = 7.0) -> None:
        """Joins small files, takes new items into the index, and removes versions older than some days."""
        from datetime import timedelta

        with self._writing():
            self.table.optimize(cleanup_older_than=timedelta(days=keep_days))

    def note(self, name: str) -> bytes | None:
        """What the metadata of the embeddings' column say under a name."""
        field = self.table.schema.field(column_of(self.info.embed_dim))
        content = (field.metadata or {}).get(name.encode())
        return None if content in {None, b'{}'} else content

    def set_note(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes it there."""
        self._annotate(column_of(self.info.embed_dim), name, json.dumps(values))

    def _annotate(self, column: str, name: str, value: str) -> None:
        with self._writing():
            self.table.update_field_metadata({'path': column, 'metadata': {name: value}})

    def add_columns(self, columns: Collection[str]) -> None:
        """Keeps these labels from now on, too; items that are there have none."""
        if set(columns) - set(self.columns):
            with self._writing():
                new = [name for name in columns if name not in self.columns]
                if new:
                    self.table.add_columns(dict.fromkeys(new, 'cast(NULL as string)'))

    def _writing(self) -> AbstractContextManager[None]:
        """One writer of this machine at a time, who begins from what the others have written."""
        return _Turn(self.table, nullcontext() if self._folder is None else exclusive(self._folder, PATIENCE))

    def _condition(self, where: str | None) -> str | None:
        return None if where is None else compile_where(where, kinds_of(self.table.schema))

    def _scan(self, columns: Sequence[str], condition: str | None = None) -> Iterator[Any]:
        query = self.table.search().select(list(columns)).limit(None)
        yield from (query if condition is None else query.where(condition)).to_batches(_ROWS)


class _Turn(AbstractContextManager[None]):
    """Waits for the lock, then looks at the newest version."""

    def __init__(self, table: Any, lock: AbstractContextManager[None]) -> None:
        self.table, self.lock = table, lock

    def __enter__(self) -> None:
        self.lock.__enter__()
        try:
            self.table.checkout_latest()
        except BaseException:
            self.lock.__exit__(None, None, None)
            raise

    def __exit__(self, *error: Any) -> bool | None:
        return self.lock.__exit__(*error)
