"""Ways to damage a JSON file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = ('nonsense', -7, 1e30, None, [], {}, [1, 'x'], True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all entries of a JSON value, those of inner nodes, too."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one entry replaced, or left out for `...`."""
    value = copy.deepcopy(value)
    node = value
    for key in path[:-1]:
        node = node[key]
    if new is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = new
    return value


def json_changes(content: Any) -> Iterator[tuple[str, Any]]:
    """Every entry left out, and replaced by some value of another kind, in turn."""
    for number, path in enumerate(leaves(content)):
        name = '.'.join(map(str, path))
        yield f'{name} left out', changed(content, path, ...)
        for shift in range(2):
            new = WRONG[(number + 3 * shift) % len(WRONG)]
            yield f'{name}: {new!r}', changed(content, path, new)


BROKEN: tuple[tuple[str, bytes], ...] = (
    ('empty', b''),
    ('cut off', b'{"a": [1, 2'),
    ('a list', b'[]'),
    ('not UTF-8', b'\xff\xfe{}'),
    ('deep', b'{"a":' * 100_000),
    ('NaN', b'{"format": NaN}'),
    ('a long number', b'{"count": ' + b'9' * 5000 + b'}'),
)
