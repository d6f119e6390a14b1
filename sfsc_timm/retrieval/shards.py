"""Shards: files of a gallery that hold embeddings and the items they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._files import replacing
from .bits import pack_signs
from .info import CODES, GalleryInfo

__all__ = ['FileState', 'Shard', 'digest_of', 'file_state', 'read_bits', 'read_shard', 'read_tensor', 'write_shard']

_TENSOR, _BITS = 'embeddings', 'bits'
_STORED = {'F32': 'float32', 'F16': 'float16', 'I8': 'int8', 'U8': 'bits'}


class FileState(NamedTuple):
    """An image file at the time it was embedded.

    Attributes:
        size: In bytes.
        mtime_ns: Time of its last change, nanoseconds since 1970.
        sha256: Of its content.
    """

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One file of embeddings.

    Attributes:
        file: Its name in the gallery's folder.
        sha256: Of the file.
        paths: The items in it, in order.
        states: What their files were like; None where that was not noted.
        identities: Who or what they show; None where that was not noted.
    """

    file: str
    sha256: str
    paths: tuple[str, ...]
    states: tuple[FileState | None, ...]
    identities: tuple[str | None, ...]

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.paths)


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def file_state(path: str | os.PathLike[str]) -> FileState:
    """State of an image file now.

    Raises:
        OSError: It cannot be read.
    """
    found = os.stat(path)  # before it is read, so that a change during the reading is seen next time
    return FileState(found.st_size, found.st_mtime_ns, digest_of(path))


def write_shard(
    folder: Path,
    name: str,
    paths: Sequence[str],
    states: Sequence[FileState | None],
    embeddings: Tensor,
    identities: Sequence[str | None] | None = None,
    *,
    bits: bool = False,
) -> Shard:
    """Writes a shard in one step.

    Args:
        folder: The gallery's.
        name: Of the file.
        paths: N items.
        states: What their files are like.
        embeddings: Shape `(N, D)`, in the stored type, contiguous, on the CPU.
        identities: Who or what they show; where all are None, nothing is written of them.
        bits: Write the signs of the embeddings, too, as `pack_signs` does.
    """
    shown = tuple(identities) if identities is not None else (None,) * len(paths)
    noted = [None if state is None else [state.size, state.mtime_ns, state.sha256] for state in states]
    metadata = {'paths': json.dumps(list(paths)), 'files': json.dumps(noted)}
    if any(identity is not None for identity in shown):
        metadata['identities'] = json.dumps(shown)
    tensors = {_TENSOR: embeddings, **({_BITS: pack_signs(embeddings)} if bits else {})}
    with replacing(folder / name) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        digest = digest_of(temporary)
    return Shard(name, digest, tuple(paths), tuple(states), shown)


def read_shard(folder: Path, name: str, count: int, digest: str | None, info: GalleryInfo) -> Shard:
    """Reads the items of a shard, and sees to it that all of it is as it was written.

    Args:
        folder: The gallery's.
        name: Of the file.
        count: How many items it must hold.
        digest: Its SHA-256; None in a gallery of before, which does not say it.
        info: What the gallery holds.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is damaged, or another file; the message names it.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f'gallery {str(folder)!r} lists {name} ({count} items), which is missing; '
            'restore it, or build the gallery again.'
        )
    found = digest_of(path)
    if digest is not None and found != digest:
        raise _damaged(path, f'its content is not what was written (SHA-256 {found[:12]}, expected {digest[:12]})')
    read_tensor(folder, name, count, info)
    if info.dtype == 'binary':
        read_bits(folder, name, count, info)
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
        paths = json.loads(metadata['paths'])
        states = json.loads(metadata['files']) if 'files' in metadata else [None] * count
        identities = json.loads(metadata['identities']) if 'identities' in metadata else [None] * count
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise _damaged(path, f'it does not say whose embeddings it holds: {error!r}') from error
    if not isinstance(paths, list) or not set(map(type, paths)) <= {str}:
        raise _damaged(path, 'its paths must be a list of texts')
    if len(paths) != count:
        raise _damaged(path, f'it has {len(paths)} paths for {count} embeddings')
    if not isinstance(identities, list) or not set(map(type, identities)) <= {str, type(None)}:
        raise _damaged(path, 'its identities must be a list of texts')
    if len(identities) != count:
        raise _damaged(path, f'it has {len(identities)} identities for {count} embeddings')
    return Shard(name, found, tuple(paths), _states(path, states, count), tuple(identities))


def read_tensor(folder: Path, name: str, count: int, info: GalleryInfo) -> Tensor:
    """Embeddings of a shard, `(count, D)`, in the stored type, codes for a gallery of codes.

    Raises:
        ValueError: They are not what the gallery's manifest says, or not finite; the message names the file.
    """
    path, is_code = folder / name, info.dtype in CODES
    tensor = _read(path, _TENSOR, info, 'int8' if is_code else info.dtype, (count, info.embed_dim))
    bad = torch.empty(0) if is_code else (~tensor.isfinite()).any(1).nonzero()
    if len(bad):
        raise _damaged(path, f'{len(bad)} of its embeddings are not finite, the first is number {int(bad[0])}')
    return tensor


def read_bits(folder: Path, name: str, count: int, info: GalleryInfo) -> Tensor:
    """Signs of a shard of a binary gallery, see `pack_signs`.

    Raises:
        ValueError: They are not what the gallery's manifest says; the message names the file.
    """
    return _read(folder / name, _BITS, info, 'bits', (count, -(-info.embed_dim // 8)))


def _read(path: Path, name: str, info: GalleryInfo, expected: str, size: tuple[int, int]) -> Tensor:
    """A tensor of a file, as a view of the file: what is not looked at takes no memory."""
    wanted = {_TENSOR, _BITS} if info.dtype == 'binary' else {_TENSOR}
    try:
        with safe_open(path, 'pt') as file:
            names = list(file.keys())
            if set(names) != wanted:
                what = f'one tensor, {_TENSOR!r}' if len(wanted) == 1 else f'the tensors {_TENSOR!r} and {_BITS!r}'
                raise _damaged(path, f'it must hold {what}, found {names[:4]}')
            header = file.get_slice(name)
            dtype, shape = _STORED.get(header.get_dtype(), header.get_dtype()), tuple(header.get_shape())
            if dtype != expected or shape != size:
                raise _damaged(path, f'its {name} are {dtype} {shape}, the manifest says {expected} {size}')
            tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, f'it is no whole safetensors file ({error})') from error
    return tensor


def _states(path: Path, values: Any, count: int) -> tuple[FileState | None, ...]:
    """Checks by column: there may be millions."""
    if not isinstance(values, list) or len(values) != count:
        raise _damaged(path, f'its notes of the files must be a list of {count}')
    noted = [value for value in values if value is not None]
    if set(map(type, noted)) <= {list} and set(map(len, noted)) <= {3}:
        kinds = [set(map(type, column)) for column in zip(*noted, strict=True)]
        if kinds in ([], [{int}, {int}, {str}]):
            return tuple(None if value is None else FileState._make(value) for value in values)
    raise _damaged(path, 'its notes of the files must be [size, time, SHA-256] or null')


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f'{str(path)!r} is no shard of this gallery: {reason}; restore it, or build the gallery again.')
