"""Galleries into galleries, and into files that other databases load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._files import replacing
from .gallery import Gallery
from .info import CODES, IncompatibleGalleryError
from .lance import LanceGallery, common_root
from .preparation import Preparation
from .store import Existing, Records, Store

__all__ = ['Format', 'convert', 'export', 'merge']

Format = Literal['parquet', 'npy']


def convert(source: Store, target: str | Path, *, root: str | None = None, dtype: str | None = None) -> Store:
    """Copies a gallery into the other kind of store, or another type; one that is there already is completed.

    Args:
        source: A safetensors gallery becomes a Lance gallery, and the other way round.
        target: Folder, or for Lance an address.
        root: What the paths of a Lance gallery become relative to; None is the innermost folder that holds them all.
        dtype: Stored type of a safetensors gallery that is made of another one, of either kind; None keeps the type.

    Raises:
        IncompatibleGalleryError: The target holds a gallery of other embeddings.
        ValueError: Items of several widths, of which a safetensors gallery keeps one; codes, which a Lance gallery does
            not keep, and of which no better ones can be made.
    """
    made: Store
    if dtype is not None:
        if root is not None:
            raise ValueError('a safetensors gallery, which a type makes, has no root; leave one of them out')
        return _retyped(source, target, dtype)
    if isinstance(source, LanceGallery):
        made = Gallery.create(target, source.info)
    else:
        if source.info.dtype in CODES:
            raise ValueError(
                f'a Lance gallery holds float32 or float16, got {source.location!r} of {source.info.dtype}; index the '
                'images by --store lance'
            )
        base = common_root(path for path, _ in source.files()) if root is None else root
        made = LanceGallery.create(target, source.info, root=base, columns=source.columns)
    merge(made, source, existing='skip')
    return made


def _retyped(source: Store, target: str | Path, dtype: str) -> Gallery:
    if source.info.dtype in CODES:
        raise ValueError(
            f'{source.location!r} must hold float32 or float16 to become {dtype}, got {source.info.dtype}; index the '
            'images again'
        )
    _one_width(source)
    made = Gallery.create(target, replace(source.info, dtype=dtype))
    _claim(made, source)
    _copy(made, source, 'skip')
    return made


def merge(target: Store, source: Store, existing: Existing = 'refuse') -> None:
    """Adds the items of a gallery to another one of the same metric space.

    A Lance gallery notes the width of each item, and takes those of another width of the space, too.

    Args:
        target: Gets them.
        source: Stays as it is.
        existing: What to do with items that are in both; 'refuse' is found at the first, block by block.

    Raises:
        IncompatibleGalleryError: Their embeddings cannot be compared, or their images were prepared differently.
        ValueError: An item is in both, with 'refuse'.
    """
    _check_space(target, source)
    _claim(target, source)
    if existing == 'refuse':
        there = sum(1 for _ in _shared(target, source))
        if there:
            raise ValueError(
                f'{there} items of {source.location!r} are in {target.location!r} already; choose --existing skip or '
                'replace'
            )
    _copy(target, source, existing)


def _claim(target: Store, source: Store) -> None:
    prepared = Preparation.of(source)
    if prepared is not None:
        prepared.claim(target)


def _copy(target: Store, source: Store, existing: Existing) -> None:
    if isinstance(target, LanceGallery):
        target.add_columns(source.columns)
    for part in source.records():
        if isinstance(target, LanceGallery):
            target.append(part.paths, part.embeddings, part.states, existing, part.labels, part.widths)
        else:
            target.append(part.paths, part.embeddings, part.states, existing, part.labels)


def _shared(target: Store, source: Store) -> Iterator[str]:
    there = {path for path, _ in target.files()}
    return (path for path, _ in source.files() if path in there)


def _check_space(target: Store, source: Store) -> None:
    one, two = target.info, source.info
    if isinstance(target, LanceGallery) and one.width != two.width:
        if (one.embed_dim, one.dtype) == (two.embed_dim, two.dtype) and one.shares_space(
            two.compatibility_id, two.space_id
        ):
            return
        raise IncompatibleGalleryError(
            f'galleries must be of one metric space, size and type, got {one} in {target.location!r} and {two} in '
            f'{source.location!r}'
        )
    target.checked_like(two)
    if not isinstance(target, LanceGallery):
        _one_width(source)


def _one_width(source: Store) -> None:
    if isinstance(source, LanceGallery) and any(set(part.widths) != {source.info.width} for part in source.records()):
        raise ValueError(
            f'{source.location!r} has items of several widths, of which a safetensors gallery keeps one; leave it as '
            'it is'
        )


def export(gallery: Store, file: str | Path, form: Format) -> None:
    """Writes a file that other databases load.

    Args:
        gallery: Whose items.
        file: 'parquet' has the columns path, embedding, width, file_size, file_time and labels, a row an item. 'npy'
            is an array `(N, D)`, with FILE.jsonl beside it: path, width and labels of a row a line.
        form: Which.

    Raises:
        ImportError: pyarrow is not installed, for parquet.
        ValueError: The gallery is empty.
    """
    if not len(gallery):
        raise ValueError(f'{gallery.location!r} must hold images, it is empty')
    writers: dict[str, Callable[[Store, Path], None]] = {'parquet': _to_parquet, 'npy': _to_npy}
    if form not in writers:
        raise ValueError(f'format must be one of {list(writers)}, got {form!r}')
    writers[form](gallery, Path(file))


def _rows(part: Records) -> Iterator[dict[str, Any]]:
    for i, (path, width) in enumerate(zip(part.paths, part.widths, strict=True)):
        yield {'path': path, 'width': width, **{name: texts[i] for name, texts in part.labels.items()}}


def _to_npy(gallery: Store, file: Path) -> None:
    listed = file.with_name(f'{file.name}.jsonl')
    dtype = np.dtype(str(gallery.info.float_type).removeprefix('torch.'))
    begin = 0
    with replacing(listed) as lines, replacing(file) as numbers, lines.open('w', encoding='utf-8') as out:
        array = np.lib.format.open_memmap(numbers, 'w+', dtype, (len(gallery), gallery.info.embed_dim))
        for part in gallery.records():
            array[begin : begin + len(part.paths)] = part.embeddings.numpy()
            begin += len(part.paths)
            out.writelines(json.dumps(row) + '\n' for row in _rows(part))
        array.flush()


def _to_parquet(gallery: Store, file: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("writing parquet needs pyarrow: pip install 'sfsc-timm[scale]'") from error
    number = pa.float16() if gallery.info.dtype == 'float16' else pa.float32()
    labels = [pa.field(name, pa.string()) for name in gallery.columns]
    schema = pa.schema([
        ('path', pa.string()), ('embedding', pa.list_(number)), ('width', pa.float64()),
        ('file_size', pa.int64()), ('file_time', pa.int64()), *labels,
    ])  # fmt: skip
    size = gallery.info.embed_dim
    with replacing(file) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for part in gallery.records():
            flat = pa.array(part.embeddings.contiguous().flatten().numpy())
            places = pa.array(np.arange(0, len(flat) + 1, size, dtype=np.int32))
            columns = [
                list(part.paths), pa.ListArray.from_arrays(places, flat), list(part.widths),
                [None if state is None else state.size for state in part.states],
                [None if state is None else state.mtime_ns for state in part.states],
                *(list(part.labels[name]) for name in gallery.columns),
            ]  # fmt: skip
            writer.write_table(pa.table(columns, schema=schema))
