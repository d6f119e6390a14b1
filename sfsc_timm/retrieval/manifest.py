"""The manifest of a gallery: what it was embedded by, and which shards make it up."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .._files import write_json
from .info import CODES, GalleryInfo
from .scales import Scales
from .shards import Shard

__all__ = ['MANIFEST', 'Entry', 'Manifest', 'read_manifest', 'shard_name', 'write_manifest']

MANIFEST = 'manifest.json'
# Version 1 had neither digests of the shards nor space ids, version 3 has codes, and the scales of them.
_FORMATS = ('sfsc-timm gallery 1', 'sfsc-timm gallery 2', 'sfsc-timm gallery 3')
_NAME = re.compile(r'\d{5,}\.safetensors')
_SHA256 = re.compile(r'[0-9a-f]{64}')


@dataclass(frozen=True)
class Entry:
    """A shard as the manifest lists it.

    Attributes:
        file: Its name.
        count: How many items it holds.
        sha256: Of the file; None in a gallery of before.
    """

    file: str
    count: int
    sha256: str | None


@dataclass(frozen=True)
class Manifest:
    """Contents of a manifest.

    Attributes:
        info: What the gallery was embedded by.
        shards: In order.
        scales: Of a gallery of codes; None before there is any.
    """

    info: GalleryInfo
    shards: tuple[Entry, ...]
    scales: Scales | None


def shard_name(shards: Sequence[Shard]) -> str:
    """Name of the next shard, after all that are listed."""
    last = max((int(shard.file.partition('.')[0]) for shard in shards), default=-1)
    return f'{last + 1:05d}.safetensors'


def write_manifest(folder: Path, info: GalleryInfo, shards: Sequence[Shard], scales: Scales | None = None) -> None:
    """Replaces the manifest in one step."""
    is_code = info.dtype in CODES
    entries = [{'file': shard.file, 'count': shard.count, 'sha256': shard.sha256} for shard in shards]
    content = {
        'format': _FORMATS[2 if is_code else 1], 'count': sum(s.count for s in shards), 'info': asdict(info),
        'shards': entries, **({'scales': scales.to_json() if scales else None} if is_code else {}),
    }  # fmt: skip
    write_json(folder / MANIFEST, content, indent=2)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not one, or of a newer format; the message names the file and the key.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f'no gallery in {str(folder)!r}: {MANIFEST} is missing; create one first.')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        found = content['format']
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f'{str(path)!r} is not the manifest of a gallery ({error!r}); restore it, or build the gallery again.'
        ) from error
    if found not in _FORMATS:
        raise ValueError(f'{str(path)!r} has format {found!r}, this version reads {" and ".join(map(repr, _FORMATS))}.')
    info, shards = _info(path, content.get('info')), _entries(path, content.get('shards'), found == _FORMATS[0])
    total = sum(entry.count for entry in shards)
    if content.get('count') != total or isinstance(content['count'], bool):
        raise _wrong(path, 'count', f'{total}, the sum of its shards', content.get('count'))
    return Manifest(info, shards, _scales(path, content, info))


def _info(path: Path, value: Any) -> GalleryInfo:
    known = {field.name for field in fields(GalleryInfo)}
    needed = {field.name for field in fields(GalleryInfo) if field.default is MISSING}
    if not isinstance(value, dict) or not needed <= value.keys() <= known:
        raise _wrong(path, 'info', f'an object with {sorted(needed)}', value)
    try:
        return GalleryInfo(**value)
    except ValueError as error:
        raise ValueError(f'{str(path)!r} is not the manifest of a gallery: info: {error}') from error


def _scales(path: Path, content: dict[str, Any], info: GalleryInfo) -> Scales | None:
    is_code = content['format'] == _FORMATS[2]
    if is_code != (info.dtype in CODES):
        raise _wrong(path, 'dtype', 'int8 or binary in format 3 and no other', info.dtype)
    if not is_code or (content.get('scales') is None and not content.get('shards')):
        return None
    try:
        return Scales.from_json(content.get('scales'), info.embed_dim)
    except ValueError as error:
        raise ValueError(
            f'{str(path)!r} is not the manifest of a gallery: scales: {error}; restore it, or build the gallery again.'
        ) from error


def _entries(path: Path, value: Any, before: bool) -> tuple[Entry, ...]:
    if not isinstance(value, list):
        raise _wrong(path, 'shards', 'a list', value)
    entries = []
    for item in value:
        if not isinstance(item, dict):
            raise _wrong(path, 'shards', 'a list of objects', item)
        file, count, digest = (item.get(key) for key in ('file', 'count', 'sha256'))
        if not isinstance(file, str) or not _NAME.fullmatch(file):
            raise _wrong(path, 'file', 'a name such as 00000.safetensors', file)
        if type(count) is not int or count < 1:
            raise _wrong(path, f'count of {file}', 'a whole number of at least 1', count)
        if not (isinstance(digest, str) and _SHA256.fullmatch(digest)) and not (before and digest is None):
            raise _wrong(path, f'sha256 of {file}', '64 hexadecimal digits', digest)
        entries.append(Entry(file, count, digest))
    file, times = Counter(entry.file for entry in entries).most_common(1)[0] if entries else ('', 0)
    if times > 1:
        raise _wrong(path, 'shards', 'different files', f'{file} {times} times')
    return tuple(entries)


def _wrong(path: Path, key: str, expected: str, found: Any) -> ValueError:
    shown = repr(found) if len(repr(found)) <= 80 else repr(found)[:77] + '...'
    return ValueError(
        f'{str(path)!r} is not the manifest of a gallery: {key} must be {expected}, got {shown}; '
        'restore it, or build the gallery again.'
    )
