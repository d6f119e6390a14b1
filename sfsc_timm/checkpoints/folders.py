"""Folders that are replaced as a whole, so that a kill at any moment leaves the old one or the new one to be found."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ['find_folder', 'replacing_folder', 'visible_folders']

_ASIDE = 'before'  # the last part of the name of a folder on its way out


@contextmanager
def replacing_folder(directory: Path) -> Iterator[Path]:
    """Gives an empty folder beside `directory` to fill, which takes its place at the end of the block.

    Two renames do that, for a folder that is not empty cannot be renamed over: the old one steps aside first, and
    `find_folder` finds it there until the new one is in place. What a process that was killed in here left behind is
    brought back if it is all there is, and swept otherwise, by the next call.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    _recover(directory)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{directory.name}-{os.getpid()}-', dir=directory.parent))
    try:
        yield temporary
        if directory.exists():
            os.replace(directory, _aside(directory))
        os.replace(temporary, directory)
        shutil.rmtree(_aside(directory), ignore_errors=True)
    except BaseException:
        if not directory.exists() and _aside(directory).exists():
            os.replace(_aside(directory), directory)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_folder(directory: Path) -> Path:
    """The folder, or where it stands while it is being replaced."""
    if not directory.name or directory.exists():  # '.' has no name
        return directory
    aside = _aside(directory)
    return aside if aside.is_dir() else directory


def visible_folders(parent: Path) -> list[Path]:
    """Folders in another one, in the order of their names, without those that are still written or already replaced."""
    names = {path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith('.')}
    for path in parent.glob(f'.*.{_ASIDE}'):
        names.add(path.name.removeprefix('.').removesuffix(f'.{_ASIDE}'))
    return [find_folder(parent / name) for name in sorted(names)]


def _recover(directory: Path) -> None:
    """Puts right what a killed process left."""
    aside = _aside(directory)
    if aside.is_dir():
        if directory.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, directory)
    # Earlier versions left the process out of the name.
    pattern = re.compile(rf'\.{re.escape(directory.name)}-(?:(\d+)-)?[a-z0-9_]{{8}}')
    for path in directory.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and path.is_dir() and not _lives(match[1]):
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: str | None) -> bool:
    """Whether another process of this number runs."""
    if process is None or int(process) == os.getpid():
        return False
    with suppress(OSError, OverflowError):
        os.kill(int(process), 0)
        return True
    return False


def _aside(directory: Path) -> Path:
    return directory.with_name(f'.{directory.name}.{_ASIDE}')
