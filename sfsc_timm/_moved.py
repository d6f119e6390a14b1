"""Old names of what has moved, so that code and notebooks of before go on working, or learn the new name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ['moved']


def moved(
    package: str, places: Mapping[str, tuple[str, ...]], renamed: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Makes a module's `__getattr__` that finds names where they are now.

    Args:
        package: The module's `__name__`, for the message.
        places: Where to look: module to the names it took over.
        renamed: Old names to what takes their place, for the message: they no longer work as they are.
    """
    homes = {name: place for place, names in places.items() for name in names}

    def find(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        hint = f': it is {renamed[name]} now' if renamed and name in renamed else ''
        raise AttributeError(f'module {package!r} has no attribute {name!r}{hint}')

    return find
