"""Options of readers come from command lines and YAML files: the reader's annotations say their types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, tuple[type, str]] = {
    'int': (int, 'a whole number'),
    'float': (float, 'a float'),
    'str': (str, 'a text'),
    'bool': (bool, 'True or False'),
    'None': (type(None), 'None'),
}


def check_options(name: str, reader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuses options of another type than the reader declares; a whole number may stand for a float.

    Args:
        name: Name of the data set, for the message.
        reader: The reader. What it does not annotate by plain types is left to it.
        options: The options; unknown ones are left to the reader, too.

    Raises:
        ValueError: An option has another type.
    """
    parameters = inspect.signature(reader).parameters
    for key, value in options.items():
        hint = parameters[key].annotation if key in parameters else None
        kinds = (hint if isinstance(hint, str) else getattr(hint, '__name__', '')).split(' | ')
        if set(kinds) <= set(_TYPES) and not any(_is(value, _TYPES[kind][0]) for kind in kinds):
            allowed = ' or '.join(_TYPES[kind][1] for kind in kinds)
            raise ValueError(f'{key} of {name!r} must be {allowed}, got {value!r}.')


def _is(value: Any, kind: type) -> bool:
    if kind in {int, float} and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
