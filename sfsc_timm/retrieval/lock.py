"""One writer at a time, across processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ['exclusive']

_LOCK = '.lock'
_PATIENCE, _PAUSE = 8.0, 0.02  # seconds


@contextmanager
def exclusive(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Lets one process (and thread) at a time into a `with` block about a folder; others wait for it.

    The operating system holds the lock and gives it up when its process ends, however it ends: a lock file that a dead
    process left behind is taken over at once.

    Args:
        folder: The folder, which must exist.
        patience: Seconds to wait.

    Raises:
        TimeoutError: Another process did not leave the block in that time.
    """
    path = folder / _LOCK
    deadline = time.monotonic() + patience
    while (handle := _take(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f'{str(folder)!r} is being written by another process ({_holder(path)}) for over {patience:g} seconds; '
                'wait for it to end, then run this again.'
            )
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        # Before it is given up: whoever opens the name from now on makes a new file.
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _take(path: Path) -> int | None:
    """Opens and locks the file; None if someone else has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle)
        # Whoever had it before may have deleted it after it was opened here.
        if os.path.samestat(os.fstat(handle), path.stat()):
            os.ftruncate(handle, 0)
            os.write(handle, f'process {os.getpid()}'.encode())
            return handle
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """Locks an open file, or raises BlockingIOError or PermissionError at once."""
    if sys.platform == 'win32':
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8') or 'unknown'
    except (OSError, ValueError):
        return 'unknown'
