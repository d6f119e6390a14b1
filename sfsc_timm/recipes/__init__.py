"""Training recipes: SFSC, its ablations, and the systems it is compared with. A recipe is one file."""

from ._base import Recipe
from ._registry import create_recipe, list_recipes, register_recipe

__all__ = ['Recipe', 'create_recipe', 'list_recipes', 'register_recipe']
