"""Recipes by name: every public module of this package is imported and registers its own."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from ._base import Recipe

_Class = TypeVar('_Class', bound=type[Recipe])

_RECIPES: dict[str, type[Recipe]] = {}


def register_recipe(cls: _Class) -> _Class:
    """Registers the decorated recipe under its name.

    A new recipe is one new file in this package with one decorated class. Other packages may use it too.

    Raises:
        ValueError: The name is taken.
    """
    if _RECIPES.setdefault(cls.name, cls) is not cls:
        raise ValueError(f'name {cls.name!r} is already registered by {_RECIPES[cls.name].__module__}.')
    return cls


@cache
def _import_recipes() -> None:
    package = importlib.import_module('sfsc_timm.recipes')
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith('_'):
            importlib.import_module(f'{package.__name__}.{module.name}')


def list_recipes() -> dict[str, type[Recipe]]:
    """Recipes by name, sorted; their docstrings say what they do and their fields are their options."""
    _import_recipes()
    return dict(sorted(_RECIPES.items()))


def create_recipe(name: str, **options: Any) -> Recipe:
    """Makes a recipe.

    Args:
        name: One of `list_recipes()`.
        **options: Its own, in place of their defaults.

    Raises:
        ValueError: The name or an option is unknown.
    """
    known = list_recipes()
    if name not in known:
        raise ValueError(f'recipe must be one of {", ".join(known)}, got {name!r}.')
    allowed = [field.name for field in fields(known[name])]
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(
            f'recipe {name!r} has no option {unknown[0]!r}; its options are: {", ".join(allowed) or "none"}.'
        )
    return known[name](**options)
