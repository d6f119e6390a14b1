"""What a config.json declares of the weights beside it, and whether that is believed.

A folder of a whole model or of one width declares, in our section of its config.json,

- `space`, the id of the metric space (`space_id`);
- `digests`, the digest of each width that it holds (`weights_digest`), by the name of the width;
- `weights`, the digest of the tensors in its file as they lie there, which for one width have another form;
- `compatibility`, the id of the checkpoint with all its widths (`compatibility_id`);
- `decoding`, the version of the rules by which images are decoded for it (`data.DECODING`);
- `embed_dims`, the sizes to which its embeddings may be cut, the last of them its own; left out where there is but one.

Its weights are believed only if their digest is `weights`. Folders from before declare `compatibility` alone. For them
this id is that of the metric space, too, so that they and the galleries made with them go on together; a whole model is
believed only if it is the id of its weights; one width cannot be checked, which a warning says.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..data import DECODING
from .identity import state_digest

__all__ = [
    'believe',
    'check_section',
    'check_sizes_made',
    'common_sizes',
    'declared_digests',
    'declared_space',
    'width_name',
]


def width_name(width: float) -> str:
    """Name of a width's folder, branch and digest: w0.25."""
    return f'w{width:g}'


def check_section(section: Any, source: str) -> dict[str, Any]:
    """Our section of a config.json, if it is one.

    Args:
        section: What was read.
        source: The file, for messages.

    Raises:
        ValueError: An entry has another type or range; the message names it.
    """
    if not isinstance(section, dict):
        raise ValueError(f'{source!r}: "sfsc" must be an object, got {section!r}; restore the file.')
    for key, fits, expected in (
        ('space', _is_id, 'text'),
        ('weights', _is_id, 'text'),
        ('compatibility', _is_id, 'text'),
        ('width', _is_width, 'a number in (0, 1]'),
        ('widths', _are_widths, 'a list of numbers in (0, 1]'),
        ('digests', _are_digests, 'an object of texts'),
        ('embed_dims', _are_sizes, 'a list of whole numbers of at least 1, ascending'),
        ('decoding', _is_decoding, f'a version from 1 to {DECODING}, of which a newer one needs a newer sfsc-timm'),
    ):
        if key in section and not fits(section[key]):
            raise ValueError(f'{source!r}: {key} must be {expected}, got {section[key]!r}; restore the file.')
    return section


def believe(section: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    """Compares the weights of a file with what the config.json beside it declares.

    Args:
        section: Our section of the config; empty where it has none, and nothing is declared.
        state: The tensors of the file.
        source: The file, for messages.

    Raises:
        ValueError: They are other weights.
    """
    before = 'weights' not in section
    if before and 'width' in section:
        warnings.warn(
            f'{source!r} declares no digest of its weights, as earlier versions saved a width: whether they are the '
            'ones that were saved cannot be told. Save or publish it again.',
            stacklevel=2,
        )
        return
    declared = section.get('compatibility' if before else 'weights')
    if declared is None:
        return
    found = state_digest({k: t for k, t in state.items() if not k.startswith('fc.')} if before else state)
    if found != declared:
        raise ValueError(
            f'{source!r} holds other weights than the config.json beside it declares (digest {found}, declared '
            f'{declared}): one of the two files was replaced or changed. Restore both from one checkpoint, or save '
            'it again with sfsc_timm.checkpoints.'
        )


def check_sizes_made(section: Mapping[str, Any], made: Any, source: str) -> None:
    """Checks the sizes that a section declares, if it does.

    Args:
        section: Our section of the config.
        made: How many numbers the model beside it makes.
        source: The file, for messages.

    Raises:
        ValueError: The last of them is another.
    """
    sizes = section.get('embed_dims')
    if sizes is not None and sizes[-1] != made:
        raise ValueError(
            f'{source!r}: embed_dims must end in {made}, as many numbers as the model makes, got {sizes}; restore it.'
        )


def common_sizes(sections: Iterable[Mapping[str, Any]], source: str) -> tuple[int, ...]:
    """The sizes that the folders of several widths have in common; none where they declare none.

    Raises:
        ValueError: They do not declare the same.
    """
    found = {tuple(section.get('embed_dims', ())) for section in sections}
    if len(found) > 1:
        raise ValueError(
            f'the folders in {source!r} have embeddings of different sizes, {sorted(found)}; name one of them.'
        )
    return found.pop()


def declared_space(section: Mapping[str, Any]) -> str | None:
    """Id of the metric space that a section declares, if it does."""
    found = section.get('space') or section.get('compatibility')
    return None if found is None else str(found)


def declared_digests(section: Mapping[str, Any]) -> dict[float, str]:
    """Digest of each width that a section says is in its folder; '' where it does not say it."""
    widths = [section['width']] if 'width' in section else section.get('widths', ())
    digests = section.get('digests', {})
    return {float(width): digests.get(width_name(width), '') for width in widths} if section else {}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_decoding(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= DECODING


def _is_width(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _are_widths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_width, value))


def _are_sizes(value: Any) -> bool:
    whole = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    return whole and bool(value) and value[0] >= 1 and value == sorted(set(value))


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_id, value.values()))
