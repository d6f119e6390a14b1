"""How the images of a gallery were prepared: noted beside it, and binding for whoever adds to it or searches it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data import DECODING, Preprocessing
from .info import IncompatibleGalleryError
from .store import Store

__all__ = ['NOTE', 'Preparation']

NOTE = 'preprocessing.json'  # in the gallery's folder


@dataclass(frozen=True)
class Preparation:
    """From a file to an embedding, but for the model.

    Attributes:
        preprocessing: How an image becomes the model's input.
        flip: Whether the embedding is averaged with that of the mirrored image.
        decoding: Version of the rules by which pixels are made of a file, see `load_image`.
    """

    preprocessing: Preprocessing
    flip: bool = False
    decoding: int = DECODING

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise ValueError(f'flip must be true or false, got {self.flip!r}')
        if isinstance(self.decoding, bool) or not isinstance(self.decoding, int) or self.decoding < 1:
            raise ValueError(f'decoding must be a version, a whole number from 1 on, got {self.decoding!r}')

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them."""
        return {**self.preprocessing.to_dict(), 'flip': self.flip, 'decoding': self.decoding}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Reads what `to_dict` gives; what notes no version of decoding is of 1.

        Raises:
            ValueError: An entry is missing, unknown or wrong.
        """
        rest = dict(values)
        flip, decoding = rest.pop('flip', False), rest.pop('decoding', 1)
        return cls(Preprocessing.from_dict(rest), flip, decoding)

    @classmethod
    def read(cls, folder: Path) -> Preparation | None:
        """That of the gallery in a folder; None where it is not noted.

        Raises:
            ValueError: The note is damaged.
        """
        path = folder / NOTE
        return cls._read(str(path), path.read_bytes()) if path.is_file() else None

    @classmethod
    def of(cls, gallery: Store) -> Preparation | None:
        """That of a gallery, wherever it is kept; None where it is not noted.

        Raises:
            ValueError: The note is damaged.
        """
        content = gallery.note(NOTE)
        return None if content is None else cls._read(f'{gallery.location}/{NOTE}', content)

    @classmethod
    def _read(cls, name: str, content: bytes) -> Preparation:
        try:
            values = json.loads(content.decode())
            if not isinstance(values, dict):
                raise ValueError(f'it must be an object, got a {type(values).__name__}')
            written = values.pop('sha256', None)  # which notes of before do not have
            if written is not None and written != _digest(values):
                raise ValueError('it is not what was written, by its sha256')
            return cls.from_dict(values)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f'{name!r} does not say how the images of the gallery were prepared: {error}; restore the file, '
                'or index the images again into another folder'
            ) from error

    def claim(self, gallery: Store) -> None:
        """Notes it for a gallery, or checks that it is what is noted there.

        Raises:
            IncompatibleGalleryError: The gallery's images were prepared in another way, or in one that is not noted.
            ValueError: The note is damaged.
        """
        folder = gallery.location
        known = self.of(gallery)
        if known is None:
            if len(gallery):
                raise IncompatibleGalleryError(
                    f'{folder!r} holds images, but no {NOTE} that says how they were prepared; restore it, or choose '
                    'another folder.'
                )
            gallery.set_note(NOTE, {**self.to_dict(), 'sha256': _digest(self.to_dict())})
        elif known != self:
            raise IncompatibleGalleryError(
                f'{folder!r} holds images prepared with {_differences(known, self, "now")}; use the same options, or '
                'another folder.'
            )

    def for_queries(
        self, folder: Path | str, changes: Mapping[str, Any], *, flip: bool, force: bool = False
    ) -> Preparation:
        """How to prepare queries for the gallery in a folder, of which this is the preparation: in the same way.

        Args:
            folder: The gallery's, for messages.
            changes: What is asked for explicitly, see `Preprocessing.changed`.
            flip: Whether averaging with the mirrored image is asked for explicitly.
            force: Do as asked although the gallery's images were prepared in another way.

        Raises:
            IncompatibleGalleryError: Something else is asked for, or the files would be decoded by other rules.
        """
        preprocessing = self.preprocessing.changed(**changes)
        asked = Preparation(preprocessing, self.flip or flip)
        if asked == self or force:
            return asked
        if replace(asked, decoding=self.decoding) == self:
            raise IncompatibleGalleryError(
                f'the images of {str(folder)!r} were decoded by rules of version {self.decoding}, this release decodes '
                f'by those of version {DECODING} (orientation, 16-bit grey and colour profiles count now): index them '
                'again into another folder, or --force'
            )
        raise IncompatibleGalleryError(
            f'the images of {str(folder)!r} were prepared with {_differences(self, asked, "asked for")}: queries must '
            'be prepared as they were; leave these options out, index the images with them into another folder, or '
            '--force'
        )


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, by which a note that was changed is told."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _differences(known: Preparation, other: Preparation, what: str) -> str:
    before, after = known.to_dict(), other.to_dict()
    changed = sorted(name for name in after if before[name] != after[name])
    return ', '.join(f'{name}={before[name]} ({what} {after[name]})' for name in changed)
