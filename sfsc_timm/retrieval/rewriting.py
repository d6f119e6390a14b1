"""Shards that are written anew with fewer items, or other labels; those that stay as they are are not touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from .info import GalleryInfo
from .manifest import shard_name
from .shards import Shard, read_tensor, write_shard

__all__ = ['labelled', 'without']


def without(folder: Path, shards: Sequence[Shard], info: GalleryInfo, paths: Collection[str]) -> tuple[Shard, ...]:
    """The shards without some items; those that lose some get new names."""
    result: list[Shard] = []
    for shard in shards:
        kept = [i for i, path in enumerate(shard.paths) if path not in paths]
        if len(kept) == shard.count:
            result.append(shard)
        elif kept:
            identities = [shard.identities[i] for i in kept]
            result.append(_anew(folder, (*shards, *result), shard, info, kept, identities))
    return tuple(result)


def labelled(
    folder: Path, shards: Sequence[Shard], info: GalleryInfo, identities: Mapping[str, str]
) -> tuple[Shard, ...]:
    """The shards with other identities by path; those that change get new names."""
    result: list[Shard] = []
    for shard in shards:
        shown = [identities.get(*pair) for pair in zip(shard.paths, shard.identities, strict=True)]
        changes = tuple(shown) != shard.identities
        every = range(shard.count)
        result.append(_anew(folder, (*shards, *result), shard, info, every, shown) if changes else shard)
    return tuple(result)


def _anew(
    folder: Path,
    taken: Sequence[Shard],
    shard: Shard,
    info: GalleryInfo,
    kept: Sequence[int],
    identities: Sequence[str | None],
) -> Shard:
    tensor = read_tensor(folder, shard.file, shard.count, info)[list(kept)].contiguous()
    columns = [shard.paths[i] for i in kept], [shard.states[i] for i in kept]
    return write_shard(folder, shard_name(taken), *columns, tensor, identities, bits=info.dtype == 'binary')
