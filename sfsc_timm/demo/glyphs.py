"""Pictures out of the box: letters and signs in many typefaces, as PNG files that are told apart by their names."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .._files import write_json
from ..data import RetrievalData, Sample, load_data
from ..data.glyphs import TYPEFACES, glyph_characters

__all__ = ['draw_glyphs']

_SIZE, _CHARACTERS = 64, 60
_LIST = 'list.json'  # written last: what has it is complete


def draw_glyphs(folder: Path, characters: int = _CHARACTERS, size: int = _SIZE) -> RetrievalData:
    """Draws the pictures, or finds them drawn: a gallery of each character in its typefaces, and queries drawn anew.

    Args:
        folder: Where they lie.
        characters: How many, at least 2.
        size: Side of the pictures, in pixels.

    Raises:
        ImportError: matplotlib, whose fonts they are drawn with, is not installed.
    """
    if not (folder / _LIST).is_file():
        data = load_data('glyphs', size=size, train_identities=2, test_identities=characters)
        names = [_name(character) for character in glyph_characters()]
        listed = {
            side: _write(folder / side, samples, names)
            for side, samples in (('query', data.query), ('gallery', data.gallery))
        }
        write_json(folder / _LIST, listed)
    listed = json.loads((folder / _LIST).read_text(encoding='utf-8'))
    query, gallery = (
        [Sample(folder / side / name, identity, camera) for name, identity, camera in listed[side]]
        for side in ('query', 'gallery')
    )
    return RetrievalData('glyphs', train=(), query=query, gallery=gallery)


def _write(folder: Path, samples: Sequence[Sample], names: Sequence[str]) -> list[tuple[str, int, int]]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sample in samples:
        name = f'{names[sample.identity]}, {TYPEFACES[sample.camera]}.png'
        Image.fromarray(np.asarray(sample.image)).save(folder / name)
        written.append((name, sample.identity, sample.camera))
    return written


def _name(character: str) -> str:
    """Unicode's name, which is of letters, digits, spaces and hyphens."""
    return unicodedata.name(character, f'U+{ord(character):04X}').lower()
