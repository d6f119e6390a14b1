"""How the items of a safetensors gallery are compared with queries, by the type in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..evaluation.scores import check_embeddings
from .bits import HammingScan
from .codes import CodeScan
from .funnel import Funnel, Scan, Shortlist
from .info import CODES, GalleryInfo
from .scales import Scales
from .search import search
from .shards import Shard, read_bits, read_tensor

__all__ = ['binary_shortlist', 'decoded', 'make_scan']


def binary_shortlist(count: int) -> int:
    """How many of a binary gallery's items are compared by their codes, if it is not said: 100, or a thousandth of all.

    The more items there are, the more lie about as near as the nearest, and by bits alone they cannot be told apart.
    """
    return max(100, count // 1000)


def decoded(folder: Path, shard: Shard, info: GalleryInfo, scales: Scales | None) -> Tensor:
    """Embeddings `(n, D)` of a shard, as floats."""
    tensor = read_tensor(folder, shard.file, shard.count, info)
    return tensor if scales is None else scales.decode(tensor)


def make_scan(
    folder: Path, shards: Sequence[Shard], info: GalleryInfo, scales: Scales | None, shortlist: Shortlist | None
) -> Scan:
    """Reads the items into memory (of a binary gallery its bits), and makes of them what searches them.

    Args:
        folder: The gallery's.
        shards: All of them; of none, a search says so.
        info: What the gallery holds.
        scales: Of codes.
        shortlist: In two steps; None compares all items in full, those of a binary gallery by their bits first.

    Returns:
        Called with queries, k and a distance, it gives scores and items as `search` does.

    Raises:
        ValueError: The shortlist does not fit the gallery.
    """
    if scales is None or info.dtype not in CODES or not shards:
        embeddings = _whole(folder, shards, info, info.float_type)
        if shortlist is not None:
            return Funnel.of_embeddings(embeddings, shortlist).search
        return lambda query, k, distance: search(query, embeddings, k, distance=distance)
    if info.dtype == 'binary':
        return _binary(folder, shards, info, scales, shortlist).search
    codes = CodeScan(_whole(folder, shards, info, torch.int8), scales)
    if shortlist is None:
        return codes.search
    if shortlist.by == 'binary':
        bits = HammingScan.of_embeddings(codes.codes)
        return Funnel(
            lambda query, size, _: bits.shortlist(query, size), codes.rows, shortlist.size, codes.count
        ).search
    short = codes.first(shortlist.by)
    return Funnel(
        lambda query, size, distance: short.search(query[:, : short.dim], size, distance)[1],
        codes.rows, shortlist.size, codes.count,
    ).search  # fmt: skip


def _whole(folder: Path, shards: Sequence[Shard], info: GalleryInfo, dtype: torch.dtype) -> Tensor:
    result = torch.empty(sum(shard.count for shard in shards), info.embed_dim, dtype=dtype)
    begin = 0
    for shard in shards:  # one after the other into place, so that no second copy of everything is made
        result[begin : begin + shard.count] = read_tensor(folder, shard.file, shard.count, info)
        begin += shard.count
    return result


def _binary(
    folder: Path, shards: Sequence[Shard], info: GalleryInfo, scales: Scales, shortlist: Shortlist | None
) -> Funnel:
    """Bits are in memory, the codes of the shortlist are looked up in the files."""
    if shortlist is not None and shortlist.by != 'binary':
        raise ValueError(f"a binary gallery has a shortlist by 'binary' and no other, got {shortlist.by}")
    files = [read_tensor(folder, shard.file, shard.count, info) for shard in shards]
    ends = torch.tensor([len(file) for file in files]).cumsum(0)

    def rows(items: Tensor) -> Tensor:
        result = torch.empty(len(items), info.embed_dim)
        shard_of = torch.bucketize(items, ends, right=True)
        for number in shard_of.unique().tolist():
            here = shard_of == number
            begin = int(ends[number]) - len(files[number])
            result[here] = scales.decode(files[number][items[here] - begin])
        return result

    bits = HammingScan(torch.cat([read_bits(folder, shard.file, shard.count, info) for shard in shards]))

    def nearest(query: Tensor, size: int, distance: object) -> Tensor:  # noqa: ARG001  bits know one distance
        check_embeddings(query, 'query', len(query), info.embed_dim)
        return bits.shortlist(query, size)

    size = binary_shortlist(bits.count) if shortlist is None else shortlist.size
    return Funnel(nearest, rows, size, bits.count)
