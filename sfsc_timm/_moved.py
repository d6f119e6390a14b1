"""Old names of what has moved, so that code and notebooks of before go on working."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ['moved']


def moved(package: str, places: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Makes a module's `__getattr__` that finds names where they are now.

    Args:
        package: The module's `__name__`, for the message.
        places: Where to look: module to the names it took over.
    """
    homes = {name: place for place, names in places.items() for name in names}

    def find(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    return find
