"""Pictures of the gallery as the page shows them, and pictures that visitors send: both of bounded size."""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .refusal import Refusal

__all__ = ['MOST_BYTES', 'MOST_PIXELS', 'Decode', 'Thumbnails', 'decode_sent', 'shown']

Decode = Callable[[Any, str], Image.Image]
"""`sfsc_timm.data.load_image`: from a path or the bytes of a file, and a mode, to upright sRGB pixels."""

MOST_BYTES = 20_000_000  # of a picture that a visitor sends
MOST_PIXELS = 50_000_000
_TOO_MANY = f'more than {MOST_PIXELS // 1_000_000} million; choose a smaller one.'
_SIDE = 256
_KEPT_BYTES = 32_000_000


def decode_sent(body: bytes, mode: str, decode: Decode) -> Image.Image:
    """Decodes a picture that a visitor sent.

    Raises:
        Refusal: It is no picture, or too large a one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of sizes, which are limited here
            with Image.open(io.BytesIO(body), formats=_formats()) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise Refusal(413, f'The picture has {_TOO_MANY}') from error
    except Exception as error:  # damaged headers raise whatever their parser meets
        raise Refusal(415, 'The picture is none that can be read; choose a JPEG, PNG or WebP file.') from error
    if width * height > MOST_PIXELS:
        raise Refusal(413, f'The picture has {width} x {height} pixels, {_TOO_MANY}')
    try:
        return decode(body, mode)
    except OSError as error:
        raise Refusal(415, 'The picture is damaged, or of a kind that is not read; choose another file.') from error


def _formats() -> tuple[str, ...]:
    """Those that browsers and phones write, as far as Pillow has them: for none of them it starts a program."""
    Image.init()
    names = ('AVIF', 'BMP', 'GIF', 'HEIF', 'JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP')
    return tuple(name for name in names if name in Image.OPEN)


def shown(image: Image.Image, side: int = _SIDE) -> tuple[bytes, str]:
    """A picture as the page shows it: no longer than `side`, without the file's metadata.

    Returns:
        The file, PNG for small pictures and JPEG for photographs, and its media type.
    """
    small = max(image.size) <= side
    if not small:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    if small and image.width * image.height <= 128 * 128:
        image.save(file, 'PNG')
        return file.getvalue(), 'image/png'
    image.save(file, 'JPEG', quality=88)
    return file.getvalue(), 'image/jpeg'


class Thumbnails:
    """Pictures of a list as the page shows them; the latest are kept, up to 32 MB, and two are made at a time.

    Args:
        paths: The list; nothing else is ever opened.
        decode: See `Decode`.
    """

    def __init__(self, paths: Sequence[Path], decode: Decode) -> None:
        self._paths, self._decode = paths, decode
        self._kept: OrderedDict[int, tuple[bytes, str]] = OrderedDict()
        self._bytes = 0
        self._lock, self._working = threading.Lock(), threading.Semaphore(2)

    def __call__(self, item: int) -> tuple[bytes, str]:
        """The file of an item and its media type.

        Raises:
            Refusal: There is no such item, or its file is gone or damaged.
        """
        if not 0 <= item < len(self._paths):
            raise Refusal(404, f'The gallery has pictures 0 to {len(self._paths) - 1}, got {item}.')
        if (found := self._known(item)) is not None:
            return found
        with self._working:
            if (found := self._known(item)) is not None:  # made while this one waited
                return found
            try:
                made = shown(self._decode(self._paths[item], 'RGB'))
            except OSError as error:
                raise Refusal(410, 'The file of this picture is gone or damaged.') from error
        self._keep(item, made)
        return made

    def _known(self, item: int) -> tuple[bytes, str] | None:
        with self._lock:
            if item in self._kept:
                self._kept.move_to_end(item)
            return self._kept.get(item)

    def _keep(self, item: int, made: tuple[bytes, str]) -> None:
        with self._lock:
            if item not in self._kept:
                self._kept[item] = made
                self._bytes += len(made[0])
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1][0])
