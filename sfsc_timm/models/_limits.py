"""Bounds on the arguments of models: a mistake in a settings file must not cost a minute or the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ['check_arguments']

_DEEPEST = 1000  # blocks; the deepest of timm's networks have about 200
_WIDEST = 16_384  # channels
_MOST_HEADS = 128  # and numbers in each; the transformer of 7 billion parameters in timm has 32 of 128
_LARGEST_SIDE = 8192  # pixels
_PAIRS = ('img_size', 'patch_size')  # which may be one number for both sides
_MOST_CLASSES = 100_000_000
_MOST_WIDTHS = 64
_LARGEST_MULTIPLIER = 20  # timm's EfficientNet-L2 has 4.3 and 5.3


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuses sizes that no machine can build, before timm begins to.

    Args:
        arguments: Of the model, by name; those that are not here say nothing.

    Raises:
        ValueError: One is of another type or too large; the message names it.
    """
    for name in ('layers', 'depths'):
        if name in arguments:
            _check(name, arguments[name], 0, _DEEPEST, several=True)
            if sum(arguments[name]) > _DEEPEST:
                raise ValueError(f'{name} must be at most {_DEEPEST} blocks in all, got {sum(arguments[name])}')
    for name in ('channels', 'dims'):
        if name in arguments:
            _check(name, arguments[name], 1, _WIDEST, several=True)
            stages = len(arguments.get('layers') or arguments.get('depths') or arguments[name])
            if len(arguments[name]) != stages:
                raise ValueError(f'{name} must have a number for each of the {stages} stages, got {arguments[name]!r}')
    for name, low, high in (
        ('embed_dim', 0, _WIDEST),
        ('embed_dims', 1, _WIDEST),
        ('stem_width', 1, _WIDEST),
        ('in_chans', 1, _WIDEST),
        ('num_classes', 0, _MOST_CLASSES),
        ('depth', 1, _DEEPEST),
        ('num_heads', 1, _MOST_HEADS),
        ('head_size', 1, _MOST_HEADS),
        ('reg_tokens', 0, _WIDEST),
        ('num_reg_tokens', 0, _WIDEST),
        ('img_size', 1, _LARGEST_SIDE),
        ('patch_size', 1, _LARGEST_SIDE),
    ):
        value = arguments.get(name)
        if value is not None:
            several = name == 'embed_dims' or (name in _PAIRS and isinstance(value, tuple | list))
            _check(name, value, low, high, several=several)
    for name in ('channel_multiplier', 'depth_multiplier'):
        value = arguments.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST_MULTIPLIER:
            raise ValueError(f'{name} must be above 0 and at most {_LARGEST_MULTIPLIER}, got {value!r}')
    overlay = arguments.get('pretrained_cfg_overlay')
    if overlay is not None and not isinstance(overlay, Mapping):
        raise ValueError(
            f"pretrained_cfg_overlay must be a mapping, such as {{'file': 'model.safetensors'}}, got {overlay!r}"
        )
    widths = arguments.get('widths')
    if isinstance(widths, Sequence) and len(widths) > _MOST_WIDTHS:
        raise ValueError(f'widths must be at most {_MOST_WIDTHS}, got {len(widths)}')


def _check(name: str, value: Any, low: int, high: int, *, several: bool) -> None:
    if several and (not isinstance(value, Sequence) or isinstance(value, str) or not value):
        meaning = 'such as (32, 64, 128, 256)' if name == 'embed_dims' else 'one for each stage'
        raise ValueError(f'{name} must be a list of whole numbers, {meaning}, got {value!r}')
    for one in value if several else [value]:
        if isinstance(one, bool) or not isinstance(one, int) or not low <= one <= high:
            raise ValueError(f'{name} must be whole, from {low} to {high}, got {one!r}')
