"""Data sets by name: every public module of this package is imported and registers its own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import os

    from ._types import RetrievalData

Reader = TypeVar('Reader', bound=Callable[..., 'RetrievalData'])


class _Entry(NamedTuple):
    reader: Callable[..., RetrievalData]
    needs_root: bool


_READERS: dict[str, _Entry] = {}


def register_data(name: str, *, needs_root: bool = True) -> Callable[[Reader], Reader]:
    """Registers the decorated reader for `load_data(name)`.

    A new data set is one new file in this package with one decorated function. Other packages may use it too.

    Args:
        name: Name of the data set, lower case.
        needs_root: Whether the reader's first argument is the folder (or file) it reads.

    Raises:
        ValueError: The name is taken.
    """

    def register(reader: Reader) -> Reader:
        if name in _READERS and _READERS[name].reader is not reader:
            raise ValueError(f'name {name!r} is already registered by {_READERS[name].reader.__module__}.')
        _READERS[name] = _Entry(reader, needs_root)
        return reader

    return register


@cache
def _import_readers() -> None:
    package = importlib.import_module('sfsc_timm.data')
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith('_'):
            importlib.import_module(f'{package.__name__}.{module.name}')


def list_data() -> list[str]:
    """Returns the names that `load_data` knows, sorted."""
    _import_readers()
    return sorted(_READERS)


def load_data(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> RetrievalData:
    """Reads a data set.

    Args:
        name: One of `list_data()`.
        root: Where it lies; not needed for data sets that are made at run time, such as 'glyphs'.
        **options: Passed to the reader.

    Raises:
        ValueError: The name or an option is unknown, or root is missing or not wanted.
        FileNotFoundError: A file of the data set is missing; the message shows the expected tree.
    """
    _import_readers()
    if name not in _READERS:
        raise ValueError(f'name must be one of {", ".join(list_data())}, got {name!r}.')
    reader, needs_root = _READERS[name]
    if needs_root and root is None:
        raise ValueError(f"root is missing: load_data({name!r}, root) needs the data set's folder.")
    if not needs_root and root is not None:
        raise ValueError(f'root must be left out for {name!r}, which is made at run time, got {str(root)!r}.')
    arguments = () if root is None else (Path(root).expanduser(),)
    allowed = list(inspect.signature(reader).parameters)[len(arguments) :]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f'{name!r} has no option {unknown[0]!r}; its options are: {", ".join(allowed) or "none"}.')
    return reader(*arguments, **options)
