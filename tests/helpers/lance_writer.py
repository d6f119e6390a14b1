"""A process that writes into a Lance gallery, to be met by another one or killed."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from sfsc_timm.retrieval import GalleryInfo, LanceGallery

# Forked from one process that has imported everything, which takes seconds.
_FORKS: Any = mp.get_context('forkserver')
_FORKS.set_forkserver_preload(['sfsc_timm.retrieval', 'lancedb'])


def _write(
    folder: str, sign: Path, first: str, other: str, rounds: int, told: Connection, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    gallery = LanceGallery.create(folder, GalleryInfo('m', 1.0, 4, 'abc'))
    sign.with_suffix(f'.{first}').touch()
    told.send('ready')
    while not sign.with_suffix(f'.{other}').exists():
        time.sleep(0.001)
    for i in range(rounds):
        left = gallery.missing([*(f'{first}/{i}/{j}' for j in range(5)), f'both/{i}'])
        if left:
            gallery.append(left, torch.full((len(left), 4), float(i)), existing='skip')
            told.send(i)


@contextmanager
def lance_writer(
    folder: Path | str, sign: Path, first: str, other: str, rounds: int, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, Connection]]:
    """Starts a process that waits for another one and then writes rounds of 6 items, in one transaction each.

    Args:
        folder: Where the gallery lies, or is made.
        sign: Files of this name, one of each writer, by which they begin together.
        first: Name of the writer, and of five items of each round.
        other: Name of the writer that it waits for; the sixth item of a round belongs to both.
        rounds: How many; what is there already is not written again.
        environment: Variables of the process.

    Yields:
        The process, and where it tells that it is ready, and each round when it is written.
    """
    reader, told = _FORKS.Pipe(duplex=False)
    arguments = (str(folder), sign, first, other, rounds, told, dict(environment or {}))
    process = _FORKS.Process(target=_write, args=arguments)
    process.start()
    told.close()
    try:
        yield process, reader
    finally:
        process.kill()
        process.join()
        reader.close()
