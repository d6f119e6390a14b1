"""YAML files of settings, which people write: small, flat, without references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ['read_yaml']

_LARGEST = 1_000_000  # bytes
_DEEPEST = 20


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a mapping of settings.

    Anchors and aliases are refused: nine lines of them make a billion values.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, holds no mapping, a name twice, references, or more than settings need; the message
            names file and line.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no settings at {str(path)!r}: there is no such file.')
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f'{str(path)!r} has {size:,} bytes, at most {_LARGEST:,} are read; is it a settings file?')
    try:
        text = path.read_text(encoding='utf-8')
        _check_events(str(path), text)
        node: Any = yaml.compose(text, yaml.SafeLoader)
        _check_names(str(path), node)
        found = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f'{str(path)!r} is not UTF-8 text; save it as UTF-8 (byte {error.start}).') from error
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date or a number that is none
        mark = getattr(error, 'problem_mark', None)
        where = '' if mark is None else f' in line {mark.line + 1}'
        reason = ' '.join(str(getattr(error, 'problem', None) or error).split())[:200]
        raise ValueError(f'{str(path)!r} is no YAML{where}: {reason}') from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f'{str(path)!r} must hold a mapping of settings, got a {type(found).__name__}.')
    return found


class _Refused(Exception):  # noqa: N818  never leaves this file
    """What the file holds and may not."""


def _check_events(name: str, text: str) -> None:
    """Refuses references and deep nesting before anything is built."""
    import yaml

    depth = 0
    event: Any
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, 'anchor', None) is not None:
            raise _Refused(f'{name!r}, line {line}: anchors and aliases (& and *) are not read; write the values out.')
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise _Refused(f'{name!r}, line {line}: values are nested more than {_DEEPEST} deep; flatten them.')


def _check_names(name: str, node: Any) -> None:
    """Refuses mappings with a name twice, of which YAML would take the last."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f'{name!r}, line {key.start_mark.line + 1}'
            if not isinstance(key, yaml.ScalarNode) or key.tag != 'tag:yaml.org,2002:str':
                raise _Refused(f'{where}: keys must be names, got {str(key.value)[:80]!r}; quote it.')
            if key.value in seen:
                raise _Refused(f'{where}: {key.value!r} twice; leave one out.')
            seen.add(key.value)
            _check_names(name, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_names(name, value)
