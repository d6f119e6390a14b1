"""Data sets by name: every public module of this package is imported and registers its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .._registry import Registry
from ._options import check_options

if TYPE_CHECKING:
    import os

    from ._types import RetrievalData

Reader = TypeVar('Reader', bound=Callable[..., 'RetrievalData'])

_READERS: Registry[Callable[..., RetrievalData]] = Registry('data set', argument='name', package='sfsc_timm.data')
_WITHOUT_ROOT: set[str] = set()


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
        _READERS.add(name, reader)
        if not needs_root:
            _WITHOUT_ROOT.add(name)
        return reader

    return register


def list_data() -> list[str]:
    """Returns the names that `load_data` knows, sorted."""
    return list(_READERS.all())


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
    if name in list_data():
        if name not in _WITHOUT_ROOT and root is None:
            raise ValueError(f"root is missing: load_data({name!r}, root) needs the data set's folder.")
        if name in _WITHOUT_ROOT and root is not None:
            raise ValueError(f'root must be left out for {name!r}, which is made at run time, got {str(root)!r}.')
        check_options(name, _READERS.makers[name], options)
    arguments = () if root is None else (Path(root).expanduser(),)
    data: RetrievalData = _READERS.create(name, *arguments, **options)
    return data
