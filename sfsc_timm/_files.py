"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ['replacing', 'scratch_folder', 'sweep_leftovers', 'write_csv', 'write_failure', 'write_json']

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch and NumPy say of a write that stops half-way.
_TORN = re.compile(r'inline_container.*(unexpected pos|Writer)|\d+ requested and \d+ written', re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, which takes its place at the end of the block.

    If the block fails, what lay at `path` stays, and nothing is left of the other. What is at `path` after the block
    outlasts a power cut. What a process that was killed in its block has left there is removed.

    Raises:
        OSError: The disk is full; the message names `path`.
    """
    sweep_leftovers(path.parent, path.name)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        if os.name == 'posix':  # elsewhere a folder cannot be opened
            _to_disk(path.parent)
    except Exception as error:
        if reason := write_failure(error):
            raise OSError(f'{str(path)!r} could not be written: {reason}') from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes files that processes which are gone were writing when they were killed.

    Args:
        folder: Where to look.
        name: Of the file that they meant to write; None for any.
    """
    if os.name != 'posix' or not folder.is_dir():  # elsewhere there is no asking whether a process is alive
        return
    for path in folder.glob('.*.tmp'):
        written = re.fullmatch(r'\.(.+)\.(\d+)\.tmp', path.name)
        if written and name in (None, written[1]) and not _is_alive(int(written[2])):
            path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Gives a temporary folder for the length of the block.

    What processes that were killed in their block have left behind is removed first.

    Args:
        purpose: What it is for, a part of its name; only folders of the same purpose are removed.
    """
    if os.name == 'posix':
        for path in Path(tempfile.gettempdir()).glob(f'sfsc-{purpose}-*'):
            made = re.fullmatch(rf'sfsc-{re.escape(purpose)}-(\d+)-[a-z0-9_]+', path.name)
            if made and not _is_alive(int(made[1])):
                shutil.rmtree(path, ignore_errors=True)  # another user's stays
    with tempfile.TemporaryDirectory(prefix=f'sfsc-{purpose}-{os.getpid()}-') as folder:
        yield Path(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_failure(error: BaseException) -> str | None:
    """Says what to do where a disk, or one's share of it, is full; None for any other error.

    Torch and safetensors tell it by exceptions of their own.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    texts = [str(cause) for cause in causes]
    numbered = any(isinstance(cause, OSError) and cause.errno in _FULL for cause in causes)
    told = any(f'(os error {number})' in text for text in texts for number in _FULL)
    if not (numbered or told or any(map(_TORN.search, texts))):
        return None
    return f'the disk is full ({" ".join(texts[0].split())[:200]}); free some space, or choose another folder'


def write_json(path: Path, values: Mapping[str, Any], *, indent: int = 1, sort_keys: bool = False) -> None:
    """Writes values as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=indent, sort_keys=sort_keys) + '\n', encoding='utf-8')


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the names that occur in any of them, in the order of their first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
