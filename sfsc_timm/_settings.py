"""Settings as fields of a dataclass: each says its type and range in one place, for the checks and for the help."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from typing import Any

__all__ = ['check_settings', 'check_value', 'range_of', 'setting', 'with_default']


def setting(default: Any, text: str = '', group: str = '', *, within: str = '', noun: str = '', **more: Any) -> Any:
    """A field of a dataclass with what it may be.

    Args:
        default: Its default.
        text: What it is, for the help.
        group: Of the help, that it belongs to.
        within: Interval of a number, or of each of several, such as '[0, 1)' or '(0, inf)'; empty for any finite one.
        noun: What messages call the number, in place of 'a number'.
        **more: Other entries of the field's metadata. `choices` are the values that a text may be; `count` is how many
            values a list has, or '+' for at least one; `allows_bool` takes true and false as the numbers 1 and 0.
    """
    metadata = {'help': text, 'group': group, 'within': within, 'noun': noun, **more}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def with_default(owner: type, name: str, default: Any) -> Any:
    """A setting as another dataclass has it, with a default of its own."""
    known = next(entry for entry in fields(owner) if entry.name == name)
    return field(default=default, metadata=known.metadata)


def range_of(entry: Field[Any]) -> str:
    """The range of a number, as the help shows it: '> 0', 'in [0, 1)', or nothing."""
    within = entry.metadata.get('within', '')
    if not within:
        return ''
    low, high = within[1:-1].split(', ')
    if high == 'inf':
        return f'{">=" if within[0] == "[" else ">"} {low}'
    return f'in {within}'


def check_settings(owner: Any) -> None:
    """Checks every field of a dataclass against its type and range, and puts numbers and lists into one form.

    Args:
        owner: The instance. A field without `setting` is checked against its type alone.

    Raises:
        ValueError: A value is of another type, or out of its range.
    """
    for entry in fields(owner):
        object.__setattr__(owner, entry.name, check_value(entry, getattr(owner, entry.name)))


def check_value(entry: Field[Any], value: Any) -> Any:
    """A value for one field of a dataclass, in its one form.

    Raises:
        ValueError: It is of another type than the field, or out of its range.
    """
    kind, optional = _kind(entry)
    if kind not in _KINDS or (value is None and optional):
        return value
    read, words, remedy = _KINDS[kind]
    found = read(value, entry)
    if found is None:
        raise ValueError(_message(entry, words, value, remedy, optional))
    return found


def _kind(entry: Field[Any]) -> tuple[str, bool]:
    """A field's type as it is written, and whether it may be None."""
    written = entry.type if isinstance(entry.type, str) else getattr(entry.type, '__name__', str(entry.type))
    return written.removesuffix(' | None'), written.endswith(' | None')


def _message(entry: Field[Any], words: str, value: Any, remedy: str, optional: bool) -> str:
    if choices := entry.metadata.get('choices'):
        words = f'one of {", ".join(choices)}'
    elif entry.metadata.get('noun'):
        words = entry.metadata['noun']
    if count := entry.metadata.get('count'):
        words = f'{words}, {"at least one" if count == "+" else count} of them'
    if span := range_of(entry):
        words = f'{words} {span}' if not count else f'{words}, each {span}'
    hints = [remedy] if remedy else []
    if optional:
        hints.append('leave it out for none')
    elif entry.default is not MISSING:
        hints.append(f'the default is {entry.default!r}')
    return '; '.join([f'{entry.name} must be {words}, got {_shown.repr(value)}', *hints])


def _is_within(value: float, within: str) -> bool:
    low, high = (float(bound) for bound in within[1:-1].split(','))
    above = low < value if within[0] == '(' else low <= value
    return above and (value < high if within[-1] == ')' else value <= high)


def _whole(value: Any, entry: Field[Any]) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    if abs(int(value)) > _LARGEST:
        raise ValueError(f'{entry.name} must be at most {_LARGEST}, got {_shown.repr(value)}')
    return int(value) if _is_within(int(value), entry.metadata.get('within') or '(-inf, inf)') else None


def _number(value: Any, entry: Field[Any]) -> float | None:
    if isinstance(value, bool) and not entry.metadata.get('allows_bool'):
        return None
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if _is_within(number, entry.metadata.get('within') or '(-inf, inf)') else None


def _text(value: Any, entry: Field[Any]) -> str | None:
    choices = entry.metadata.get('choices')
    return value if isinstance(value, str) and (not choices or value in choices) else None


def _several(of: Callable[[Any, Field[Any]], Any]) -> Callable[[Any, Field[Any]], Any]:
    def read(value: Any, entry: Field[Any]) -> list[Any] | None:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return None
        found = [of(one, entry) for one in value]
        count = entry.metadata.get('count')
        wrong = not found if count == '+' else count is not None and len(found) != count
        return None if wrong or None in found else found

    return read


def _names(value: Any, _: Field[Any]) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, Mapping) and all(isinstance(name, str) for name in value) else None


# By type as it is written: how to read a value (None if it is wrong), what messages call it, what to do.
_KINDS: dict[str, tuple[Callable[[Any, Field[Any]], Any], str, str]] = {
    'bool': (
        lambda value, _: value if isinstance(value, bool) else None,
        'true or false',
        'in YAML write true or false without quotes',
    ),
    'int': (_whole, 'a whole number', ''),
    'float': (_number, 'a number', ''),
    'str': (_text, 'text', ''),
    'list[int]': (_several(_whole), 'whole numbers', ''),
    'list[float]': (_several(_number), 'numbers', ''),
    'dict[str, Any]': (_names, 'a mapping of names to values', 'in YAML write {name: value}'),
}

_LARGEST = 10**12  # no setting means more, and most do not fit into what they are counted by

# Shows foreign values at any depth in bounded space.
_shown = reprlib.Repr()
_shown.maxlevel = 3
_shown.maxstring = _shown.maxother = 100
