"""How `index` embeds: parts of the images, one after the other, by this process, or in `_ray` by those of a cluster."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from ..data import Sample
from ..evaluation import embed
from ..retrieval import FileState, GalleryInfo, state_since, times_of
from ._options import serve, track
from ._terminal import cell, new_table

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from ..checkpoints import Checkpoint

__all__ = ['Part', 'embed_here', 'embeddings_of_none', 'report_unreadable']

_SHOWN = 20  # unreadable images


@dataclass(frozen=True)
class Part:
    """Some images as a gallery takes them.

    Attributes:
        paths: Those that could be read.
        embeddings: Of shape `(N, D)`.
        states: What their files were like before they were read.
        unreadable: Why others could not be read, by path.
    """

    paths: Sequence[str]
    embeddings: torch.Tensor
    states: Sequence[FileState | None]
    unreadable: Mapping[str, str] = field(default_factory=dict)


def embed_here(
    paths: Sequence[str], checkpoint: Checkpoint, info: GalleryInfo, args: argparse.Namespace
) -> Iterator[Part]:
    """Embeds images by this process, some batches at a time, in order."""
    times = times_of(paths)
    loader = serve(checkpoint, [Sample(Path(path), 0) for path in paths], args)
    count = max(1, -(-args.shard_size // args.batch_size))
    stream = track(loader, len(loader), 'embedding')
    told: set[int] = set()
    for first in stream:
        indices: list[int] = []

        def images(first: Any = first, indices: list[int] = indices) -> Iterator[torch.Tensor]:
            for batch in chain([first], islice(stream, count - 1)):
                indices.extend(batch.indices.tolist())
                yield batch.images

        found = embed(checkpoint.model, images(), [info.width], device=find_device(args.device), flip=args.flip)
        chosen = [paths[i] for i in indices]
        states = [state_since(path, times.get(path)) for path in chosen]
        yield Part(chosen, found[info.width][:, : info.embed_dim], states, _untold(loader.skipped, told, paths))
    if rest := _untold(loader.skipped, told, paths):
        yield Part([], embeddings_of_none(info), [], rest)


def embeddings_of_none(info: GalleryInfo) -> torch.Tensor:
    """Embeddings of no images, shape `(0, D)`."""
    import torch

    return torch.empty(0, info.embed_dim)


def report_unreadable(unreadable: Mapping[str, str], terminal: Console, file: Path | None) -> None:
    """Lists what could not be read in a table, and writes all of it to a file if there is to be one."""
    if file is not None:
        with file.open('w', newline='', encoding='utf-8', errors='backslashreplace') as stream:
            csv.writer(stream).writerows([('path', 'reason'), *unreadable.items()])
    if not unreadable:
        return
    table = new_table('Unreadable images', 'path', 'reason', left=('path', 'reason'))
    for column in table.columns:
        column.no_wrap, column.overflow = False, 'fold'
    for path, reason in islice(unreadable.items(), _SHOWN):
        table.add_row(cell(path), cell(reason))
    terminal.print(table)
    if len(unreadable) > _SHOWN:
        more = f'and {len(unreadable) - _SHOWN} more' + ('' if file else '; --unreadable FILE writes all of them down')
        terminal.print(more, soft_wrap=True)


def _untold(skipped: Mapping[int, str], told: set[int], paths: Sequence[str]) -> dict[str, str]:
    """Unreadable images that no part has named yet."""
    new = {i: reason for i, reason in skipped.items() if i not in told}
    told.update(new)
    return {paths[i]: reason for i, reason in new.items()}
