"""What happened to the files of a gallery's items since they were embedded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from .shards import FileState, digest_of, file_state
from .store import Store

__all__ = ['Changes', 'find_changes', 'state_since', 'times_of']


@dataclass(frozen=True)
class Changes:
    """Items of a gallery that no longer are what was embedded, in the gallery's order.

    Attributes:
        changed: Their files are others now.
        gone: Their files are not there any more.
        unknown: Nothing was noted of their files, by an earlier version or another program; they are in neither of the
            other two.
    """

    changed: tuple[str, ...]
    gone: tuple[str, ...]
    unknown: tuple[str, ...]


def find_changes(gallery: Store, verify: bool = False) -> Changes:
    """Compares every item's file with what was noted of it.

    Args:
        gallery: Its items are files of this machine.
        verify: Compare their content (SHA-256, which reads all of them) in place of size and time of the last change.

    Raises:
        OSError: A file is there but cannot be looked at.
    """
    changed, gone, unknown = [], [], []
    for path, state in gallery.files():
        found = _look(path)
        if found is None:
            gone.append(path)
        elif state is None:
            unknown.append(path)
        elif digest_of(path) != state.sha256 if verify else found != _time(state):
            changed.append(path)
    return Changes(tuple(changed), tuple(gone), tuple(unknown))


def times_of(paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of files that are about to be read; those that are not there are left out."""
    found = {path: _look(path) for path in paths}
    return {path: time for path, time in found.items() if time is not None}


def state_since(path: str, before: tuple[int, int] | None) -> FileState | None:
    """State of a file that has just been read, to be noted.

    Args:
        path: The file.
        before: Its size and time before it was read.

    Returns:
        None without `before`. A file that changed in between gets the state of before and no digest, so that the next
        look finds it changed.
    """
    if before is None:
        return None
    try:
        state = file_state(path)
    except OSError:
        return FileState(*before, '')
    return state if _time(state) == before else FileState(*before, '')


def _look(path: str) -> tuple[int, int] | None:
    """Size and time of a file; None if it is not there."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns


def _time(state: FileState) -> tuple[int, int]:
    return state.size, state.mtime_ns
