"""Strings of others (settings of a run, names of data sets) in Markdown, of which they must not become a part."""

from __future__ import annotations

import re
from typing import Any

__all__ = ['fenced', 'inline', 'one_line']

# Escaped, they are themselves; `_` means something only around whole words, and names are full of it.
_SPECIAL = re.compile(r'([\\`*\[\]<>|#!&~$])')


def one_line(value: Any) -> str:
    """Text on one line, without control characters."""
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in str(value)).split())


def inline(value: Any) -> str:
    """Text that stands in a sentence, a heading or a cell as it is."""
    return _SPECIAL.sub(r'\\\1', one_line(value))


def fenced(value: Any, language: str) -> str:
    """Text as a block of code, whose fence is longer than any in the text."""
    text = ''.join(c if c.isprintable() or c in '\n\t' else ' ' for c in str(value))
    longest = max(map(len, re.findall('`+', text)), default=0)
    fence = '`' * max(3, longest + 1)
    return f'{fence}{language}\n{text}\n{fence}'
