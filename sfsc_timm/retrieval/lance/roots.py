"""Paths relative to a root, so that a gallery goes with its images from one machine to another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

__all__ = ['common_root', 'from_key', 'to_key']

_ODD = re.compile(r'/\.{0,2}(/|$)|\\')  # what relpath would take out; it takes long for millions of paths


def to_key(path: str, root: str) -> str:
    """An absolute path relative to the root, with slashes; without a root, and of what is not absolute, as it is."""
    if not root:
        return path
    if '://' in root:
        return path.removeprefix(root.rstrip('/') + '/')
    if path.startswith(root + '/') and not _ODD.search(path, len(root)):
        return path[len(root) + 1 :]
    return os.path.relpath(path, root).replace(os.sep, '/') if os.path.isabs(path) else path


def from_key(key: str, root: str) -> str:
    """The path that `to_key` made a key of, below the root of today."""
    if not root:
        return key
    if '://' in root:
        return f'{root.rstrip("/")}/{key}'
    return os.path.normpath(os.path.join(root, key))


def common_root(paths: Iterable[str]) -> str:
    """The innermost folder that holds all files; '' where they are not absolute, or have none in common."""
    folders = sorted({os.path.dirname(path) for path in paths})
    if not folders or not all(map(os.path.isabs, folders)):
        return ''
    try:
        return os.path.commonpath(folders)
    except ValueError:  # different drives
        return ''
