"""Conditions on the columns of a gallery, as in `camera = 3 and not identity in ('ann', 'bob')`.

    condition   = all {or all};   all = single {and single}
    single      = not single | ( condition ) | COLUMN comparison
    comparison  = (= | != | <> | < | <= | > | >=) VALUE | [not] in (VALUE, ...) | [not] like TEXT
                | [not] between VALUE and VALUE | is [not] null

Texts stand in single or double quotes. What is not such a condition goes no further: engines cut off what follows a
semicolon without a word, and take more of SQL than a filter needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, NoReturn

__all__ = ['Kind', 'compile_where']

Kind = Literal['text', 'number']

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,))"""
)
_COMPARISONS = ('=', '!=', '<>', '<', '<=', '>', '>=')
_WORDS = ('and', 'or', 'not', 'in', 'like', 'between', 'is', 'null')
_DEEPEST = 40


class _Token(NamedTuple):
    kind: str
    text: str


def compile_where(condition: str, columns: Mapping[str, Kind]) -> str:
    """Checks a condition and writes it for the engine, columns in backticks, values in the columns' types.

    A number that is compared with a column of texts stands for the text: `camera = 3` finds '3'.

    Args:
        condition: See above.
        columns: Those that it may speak of.

    Raises:
        ValueError: It is none, or speaks of other columns; the message says where.
    """
    parser = _Parser(condition, columns)
    compiled = parser.either(0)
    if parser.token is not None:
        parser.fail(f'the end, or "and", or "or", got {parser.token.text!r}')
    return compiled


class _Parser:
    """Recursive descent over the tokens of a condition."""

    def __init__(self, condition: str, columns: Mapping[str, Kind]) -> None:
        self.condition, self.columns = condition, columns
        self.tokens: list[_Token] = []
        place, end = 0, len(condition.rstrip())
        while place < end:
            match = _TOKEN.match(condition, place)
            if match is None or match.lastgroup is None:
                rest = condition[place:].strip()
                self.fail(f'columns, values and comparisons, got {rest[:20]!r} (texts stand in quotes)')
            self.tokens.append(_Token(match.lastgroup, match[match.lastgroup]))
            place = match.end()
        self.place = 0

    def fail(self, expected: str) -> NoReturn:
        """Says what should have come."""
        raise ValueError(
            f'--where must be a condition such as "camera = 3", got {self.condition!r}: expected {expected}'
        )

    @property
    def token(self) -> _Token | None:
        """The next one; None at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def took(self, *texts: str) -> str | None:
        """The next word or sign, if it is one of these."""
        token = self.token
        if token is not None and token.kind in {'name', 'sign'} and token.text.lower() in texts:
            self.place += 1
            return token.text.lower()
        return None

    def need(self, text: str) -> None:
        """The next word or sign must be this one."""
        if self.took(text) is None:
            self.fail(f'{text!r}, got {self._here()}')

    def either(self, depth: int) -> str:
        """Conditions of which one must hold."""
        parts = [self.both(depth)]
        while self.took('or'):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else '(' + ' OR '.join(parts) + ')'

    def both(self, depth: int) -> str:
        """Conditions that must all hold."""
        parts = [self.single(depth)]
        while self.took('and'):
            parts.append(self.single(depth))
        return parts[0] if len(parts) == 1 else '(' + ' AND '.join(parts) + ')'

    def single(self, depth: int) -> str:
        """A comparison, its opposite, or a condition in parentheses."""
        if depth > _DEEPEST:
            self.fail(f'at most {_DEEPEST} conditions inside each other')
        if self.took('not'):
            return f'(NOT {self.single(depth + 1)})'
        if self.took('('):
            inner = self.either(depth + 1)
            self.need(')')
            return inner
        return f'({self.comparison()})'

    def comparison(self) -> str:
        """A column and what it is compared with."""
        token = self.token
        if token is None or token.kind != 'name' or token.text.lower() in _WORDS:
            self.fail(f'a column, got {self._here()}')
        if token.text not in self.columns:
            self.fail(f'a column, one of {", ".join(self.columns)}, got {token.text!r}')
        self.place += 1
        column, kind = f'`{token.text}`', self.columns[token.text]
        if sign := self.took(*_COMPARISONS):
            equals = sign in {'=', '!=', '<>'}
            return f'{column} {"!=" if sign == "<>" else sign} {self.value(kind, ordered=not equals)}'
        if self.took('is'):
            negated = 'NOT ' if self.took('not') else ''
            self.need('null')
            return f'{column} IS {negated}NULL'
        negated = 'NOT ' if self.took('not') else ''
        return f'{column} {negated}{self.range_of(token.text, kind)}'

    def range_of(self, name: str, kind: Kind) -> str:
        """What follows a column and perhaps "not": a pattern, two ends, or a list."""
        if self.took('like'):
            if kind != 'text':
                self.fail(f'a comparison of numbers, got "like" for {name}')
            return f'LIKE {self.value(kind, ordered=True)}'
        if self.took('between'):
            low = self.value(kind, ordered=True)
            self.need('and')
            return f'BETWEEN {low} AND {self.value(kind, ordered=True)}'
        if not self.took('in'):
            self.fail(f'a comparison (=, !=, <, in, like, between, is null) after {name}, got {self._here()}')
        self.need('(')
        values = [self.value(kind)]
        while self.took(','):
            values.append(self.value(kind))
        self.need(')')
        return f'IN ({", ".join(values)})'

    def value(self, kind: Kind, *, ordered: bool = False) -> str:
        """The next value in a column's type."""
        token = self.token
        if token is None or token.kind not in {'text', 'number'}:
            self.fail(f'a number, or a text in quotes, got {self._here()}')
        self.place += 1
        if kind == 'number':
            if token.kind != 'number':
                self.fail(f'a number, got {token.text}')
            return token.text
        if token.kind == 'number':
            if ordered:
                self.fail(f'a text in quotes, by which texts are ordered, got {token.text}')
            return f"'{token.text}'"
        quote = token.text[0]
        text = token.text[1:-1].replace(quote * 2, quote)
        return "'" + text.replace("'", "''") + "'"

    def _here(self) -> str:
        return 'the end' if self.token is None else repr(self.token.text)
