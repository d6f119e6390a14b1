"""Recipes by name: every public module of this package is imported and registers its own."""

from __future__ import annotations

from typing import Any, TypeVar

from .._registry import Registry
from ._base import Recipe

_Class = TypeVar('_Class', bound=type[Recipe])

_RECIPES: Registry[type[Recipe]] = Registry('recipe', package='sfsc_timm.recipes')


def register_recipe(cls: _Class) -> _Class:
    """Registers the decorated recipe under its name.

    A new recipe is one new file in this package with one decorated class. Other packages may use it too.

    Raises:
        ValueError: The name is taken.
    """
    _RECIPES.add(cls.name, cls)
    return cls


def list_recipes() -> dict[str, type[Recipe]]:
    """Recipes by name, sorted; their docstrings say what they do and their fields are their options."""
    return _RECIPES.all()


def create_recipe(name: str, **options: Any) -> Recipe:
    """Makes a recipe.

    Args:
        name: One of `list_recipes()`.
        **options: Its own, in place of their defaults.

    Raises:
        ValueError: The name or an option is unknown, or an option is out of its range.
    """
    recipe: Recipe = _RECIPES.create(name, **options)
    return recipe
