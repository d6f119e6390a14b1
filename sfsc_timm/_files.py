"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ['replacing', 'write_csv', 'write_json']


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, which takes its place at the end of the block.

    If the block fails, what lay at `path` stays, and nothing is left of the other.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any], *, indent: int = 1, sort_keys: bool = False) -> None:
    """Writes values as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=indent, sort_keys=sort_keys) + '\n', encoding='utf-8')


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the names that occur in any of them, in the order of their first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
