"""The table behind a Lance gallery: where it lies, its columns, and what its metadata say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..info import DTYPES, GalleryInfo
from ..shards import FileState
from ..store import Labels
from ..where import Kind

__all__ = [
    'FILE',
    'TABLE',
    'column_of',
    'connect',
    'is_remote',
    'is_table',
    'kinds_of',
    'labels_of',
    'make_schema',
    'read_info',
    'to_arrow',
    'to_states',
    'to_tensor',
]

TABLE = 'items'
FILE = ('file_size', 'file_time', 'file_sha256')
_KEY, _FORMAT = b'sfsc_timm', 'sfsc-timm lance gallery 1'
# Lance compares the paths of concurrent inserts by it, so that two writers never both add one.
_PRIMARY = {'lance-schema:unenforced-primary-key:position': '1'}
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_METADATA_CACHE, _INDEX_CACHE = 64 << 20, 512 << 20  # bytes; without a bound they grow with every version


def is_remote(location: str | Path) -> bool:
    """Whether it is an address such as s3://bucket/gallery, and no folder."""
    return isinstance(location, str) and '://' in location


def is_table(location: str | Path) -> bool:
    """Whether a Lance gallery lies there; of an address it is believed."""
    return is_remote(location) or (Path(location) / f'{TABLE}.lance').is_dir()


def connect(location: str) -> Any:
    """The database in a folder or at an address.

    Raises:
        ImportError: LanceDB is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise ImportError("a Lance gallery needs LanceDB: pip install 'sfsc-timm[scale]'") from error
    # Centroids are not what the statistics of an index are looked at for; reading them costs memory and a warning.
    os.environ.setdefault('LANCE_INCLUDE_VECTOR_CENTROIDS', 'false')
    session = lancedb.Session(index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE)
    return lancedb.connect(location, session=session)


def column_of(size: int) -> str:
    """The column of embeddings of a size."""
    return f'embedding_{size}'


def make_schema(info: GalleryInfo, root: str, labels: Collection[str]) -> Any:
    """Columns of a gallery's table, with what embedded it in their metadata.

    Raises:
        ValueError: A label has the name of a column of the gallery's own, or one that no condition could name.
    """
    import pyarrow as pa

    own = {'path', 'width', column_of(info.embed_dim), *FILE}
    for name in labels:
        if name in own or not _NAME.fullmatch(name) or name.startswith('embedding_'):
            raise ValueError(
                f'columns must have names of letters, digits and _ that the gallery does not use itself '
                f'({", ".join(sorted(own))}), got {name!r}; rename it'
            )
    if info.dtype not in DTYPES:
        raise ValueError(f'a Lance gallery holds one of {list(DTYPES)}, got {info.dtype}; choose --store safetensors')
    number = {'float32': pa.float32(), 'float16': pa.float16()}[info.dtype]
    declared = json.dumps({'format': _FORMAT, 'info': asdict(info)})
    fields = [
        pa.field('path', pa.string(), nullable=False, metadata={**_PRIMARY, 'root': root}),
        pa.field(column_of(info.embed_dim), pa.list_(number, info.embed_dim), nullable=False),
        pa.field('width', pa.float64(), nullable=False),
        pa.field(FILE[0], pa.int64()),
        pa.field(FILE[1], pa.int64()),
        pa.field(FILE[2], pa.string()),
        *(pa.field(name, pa.string()) for name in labels),
    ]
    return pa.schema(fields, metadata={_KEY: declared})


def read_info(location: str, schema: Any) -> GalleryInfo:
    """What a table says it was embedded by.

    Raises:
        ValueError: It is no gallery, or of a newer format.
    """
    try:
        declared = json.loads((schema.metadata or {})[_KEY])
        if declared['format'] != _FORMAT:
            raise ValueError(f'its format is {declared["format"]!r}, this version reads {_FORMAT!r}')
        info = GalleryInfo(**declared['info'])
        missing = {'path', 'width', column_of(info.embed_dim), *FILE} - set(schema.names)
        if missing:
            raise ValueError(f'it has no column {", ".join(sorted(missing))}')
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f'{location!r} holds a Lance table that is no gallery ({error!r}); make one by `sfsc-timm index --store '
            'lance` in another folder'
        ) from error
    return info


def labels_of(schema: Any) -> tuple[str, ...]:
    """Names of the columns that are labels."""
    return tuple(n for n in schema.names if n not in {'path', 'width', *FILE} and not n.startswith('embedding_'))


def kinds_of(schema: Any) -> dict[str, Kind]:
    """The columns that a condition may speak of."""
    kinds: dict[str, Kind] = {'path': 'text', 'width': 'number', FILE[0]: 'number', FILE[1]: 'number', FILE[2]: 'text'}
    return {**kinds, **dict.fromkeys(labels_of(schema), 'text')}


def to_arrow(
    schema: Any,
    info: GalleryInfo,
    keys: Sequence[str],
    embeddings: Tensor,
    states: Sequence[FileState | None],
    widths: Sequence[float],
    labels: Labels,
) -> Any:
    """Items as rows of a table.

    Raises:
        ValueError: A path is no Unicode text.
    """
    import pyarrow as pa

    values = embeddings.contiguous().flatten().numpy()
    columns: dict[str, Any] = {
        'path': _texts(keys),
        column_of(info.embed_dim): pa.FixedSizeListArray.from_arrays(pa.array(values), info.embed_dim),
        'width': list(widths),
        FILE[0]: [None if state is None else state.size for state in states],
        FILE[1]: [None if state is None else state.mtime_ns for state in states],
        FILE[2]: [None if state is None else state.sha256 for state in states],
    }
    nothing = [None] * len(keys)
    columns.update({name: list(labels.get(name, nothing)) for name in labels_of(schema)})
    return pa.table([columns[name] for name in schema.names], schema=schema)


def to_states(batch: Any) -> list[FileState | None]:
    """File states of a batch of rows."""
    rows = zip(*(batch.column(name).to_pylist() for name in FILE), strict=True)
    return [None if size is None else FileState(size, time, digest) for size, time, digest in rows]


def to_tensor(batch: Any, info: GalleryInfo) -> Tensor:
    """Embeddings `(n, D)` of a batch of rows, a copy."""
    column = batch.column(column_of(info.embed_dim))
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy()).view(-1, info.embed_dim)


def _texts(keys: Sequence[str]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(keys, pa.string())
    except UnicodeEncodeError as error:
        bad = next(key for key in keys if _is_broken(key))
        raise ValueError(
            f'paths of a Lance gallery must be Unicode text, got {bad!r}; rename the file, or use --store safetensors'
        ) from error


def _is_broken(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return True
    return False
