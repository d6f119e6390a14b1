"""Things that are made by name: each public module of a package registers its own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ['Registry']

Maker = TypeVar('Maker', bound=Callable[..., Any])


class Registry(Generic[Maker]):
    """Makers by name: functions, or classes.

    Args:
        noun: What messages call one of them, such as 'recipe'.
        argument: What the caller's argument for its name is called; the noun by default.
        package: Package whose public modules are imported, and so register theirs, before the first look-up; None if
            all are added by hand.

    Attributes:
        makers: What has been registered so far.
    """

    def __init__(self, noun: str, *, argument: str | None = None, package: str | None = None) -> None:
        self.makers: dict[str, Maker] = {}
        self._noun = noun
        self._argument = argument or noun
        self._package = package

    def add(self, name: str, maker: Maker) -> None:
        """Registers a maker; again, it changes nothing.

        Raises:
            ValueError: Another one has the name.
        """
        if (first := self.makers.setdefault(name, maker)) is not maker:
            raise ValueError(f'name {name!r} is already registered by {first.__module__}; choose another one.')

    def all(self) -> dict[str, Maker]:
        """All makers by name, sorted, those of the package's modules among them."""
        if self._package is not None:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith('_'):
                    importlib.import_module(f'{self._package}.{module.name}')
            self._package = None
        return dict(sorted(self.makers.items()))

    def create(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Calls the maker of that name.

        Args:
            name: One of `all()`.
            *arguments: Passed on, by place.
            **options: Passed on, by name.

        Raises:
            ValueError: The name or an option is unknown.
        """
        known = self.all()
        if name not in known:
            raise ValueError(f'{self._argument} must be one of {", ".join(known)}, got {name!r}.')
        allowed = list(inspect.signature(known[name]).parameters)[len(arguments) :]
        if unknown := sorted(set(options) - set(allowed)):
            raise ValueError(
                f'{self._noun} {name!r} has no option {unknown[0]!r}; its options are: {", ".join(allowed) or "none"}.'
            )
        return known[name](*arguments, **options)
