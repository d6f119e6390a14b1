"""From a file or an array to upright 8-bit sRGB pixels: the rules are numbered, since embeddings depend on them."""

from __future__ import annotations

import io
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

DECODING = 2
"""Version of the rules by which `load_image` makes pixels of a file; embeddings of different versions do not compare.

Version 1 ignored orientation and colour profiles and turned 16-bit grey images white. What notes no version is of 1.
"""

DECODING_RULES = {
    'version': DECODING,
    'orientation': 'EXIF',
    'frame': 'first',
    'colours': 'sRGB, converted from embedded profiles',
    'transparent': 'white',
    'wide_greys': 'scaled from the range of their type to 8 bits',
}
"""The rules in words, for devices without this package."""

_MOST_ELONGATED = 200  # of the longer side to the shorter: beyond, resizing to a model's input would fill the memory
_ORIENTATION = 0x0112
HEIF = ('.heic', '.heif', '.hif')
# Of bytes, which may come from anyone: no format for which Pillow starts a program, as it does for EPS.
_SENT_FORMATS = ('AVIF', 'BMP', 'GIF', 'HEIF', 'JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP')


class ImageReadError(OSError):
    """An image that is missing, corrupt or truncated, or whose pixels have no known meaning; the message names it."""


class _Refused(Exception):  # noqa: N818  never leaves this file
    """Why an image is refused, and what to do."""


def load_image(source: Path | str | bytes | np.ndarray, mode: str = 'RGB') -> Image.Image:
    """Decodes one image by the rules of version `DECODING`.

    - It stands as its EXIF orientation says; broken EXIF counts as none.
    - Of an animation or a file of several pages, the first is taken.
    - Grey values of 16 bits (of 12 in a TIFF) are scaled from their type's range, whatever they reach; 32-bit and
      floating-point values have no known range and are refused.
    - An embedded colour profile is converted to sRGB; one that is broken or for another kind of pixels is ignored.
      CMYK without a profile is converted by Pillow's formula.
    - Transparent parts become white.

    Args:
        source: A file, or the content of one in a format that browsers and phones write, or pixels, uint8 or uint16 of
            shape (H, W), or uint8 of shape (H, W, 3) or (H, W, 4).
        mode: Mode of the result, 'RGB' or 'L'.

    Raises:
        ImageReadError: The file is missing, corrupt, truncated, of more pixels than Pillow allows, or of pixels
            without a known range.
    """
    try:
        if isinstance(source, np.ndarray):
            return _upright(_from_array(source), mode)
        from PIL import Image

        if isinstance(source, bytes):
            with Image.open(io.BytesIO(source), formats=_sent_formats()) as image:
                return _upright(image, mode)
        _require_file(Path(source))
        if Path(source).suffix.lower() in HEIF:
            register_heif()
        with Image.open(source) as image:
            return _upright(image, mode)
    # Pillow's decoders also raise SyntaxError (PNG), ValueError and struct errors on damaged files.
    except Exception as error:
        raise ImageReadError(f'Cannot read the image {_name(source)}: {_reason(error, source)}.') from error


def _name(source: Path | str | bytes | np.ndarray) -> str:
    if isinstance(source, bytes):
        return f'of {len(source)} bytes'
    return 'of an array' if isinstance(source, np.ndarray) else repr(str(source))


def _reason(error: Exception, source: Path | str | bytes | np.ndarray) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        heif = isinstance(source, Path | str) and Path(source).suffix.lower() in HEIF
        way = 'run pip install pillow-heif' if heif else 'convert it to JPEG or PNG, or leave it out'
        return f'it is no image that Pillow can read; {way}'
    if isinstance(error, Image.DecompressionBombError):
        way = 'scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it'
        return f'it has too many pixels ({str(error).rstrip(".")}); {way}'
    if isinstance(error, PermissionError):
        return 'it may not be read; change its permissions'
    if isinstance(error, MemoryError):
        return 'it does not fit into memory; scale it down'
    return f'it is damaged or cut off ({str(error).rstrip(".") or type(error).__name__}); restore it or leave it out'


def _require_file(path: Path) -> None:
    # Opening a pipe would wait for ever.
    if not path.is_file():
        if not path.exists():
            raise _Refused('there is no such file; was it moved or deleted?')
        raise _Refused('it is a folder; name an image' if path.is_dir() else 'it is no regular file; name an image')


def _from_array(array: np.ndarray) -> Image.Image:
    from PIL import Image

    grey = array.ndim == 2 and array.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}
    if not grey and not (array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in {3, 4}):
        raise _Refused(
            f'it must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), or uint16 of shape (H, W), '
            f'got {array.dtype} of shape {array.shape}; convert it'
        )
    return Image.fromarray(array)


def _upright(image: Image.Image, mode: str) -> Image.Image:
    """Applies all rules to an opened image."""
    _check_size(image)
    image.load()
    turn = _turn(image)
    image = _flatten(_in_srgb(_in_eight_bits(image))).convert(mode)
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        raise _Refused(
            f'it has {width} x {height} pixels, its longer side may be at most {_MOST_ELONGATED} times the shorter; '
            'crop it'
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for. Pillow turns TIFF files by itself and takes their tag away."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # broken EXIF raises whatever its parser meets
        return None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Scales what has more than 8 bits per grey value; Pillow itself takes the high bytes of 16-bit colours."""
    from PIL import Image as Pillow

    # Pillow holds the 16 bits of a PGM in 32.
    wide = image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PPM')
    if not wide:
        if image.mode in {'I', 'F'}:
            kind = 'whole numbers of 32 bits or with a sign' if image.mode == 'I' else 'floating-point numbers'
            raise _Refused(f'its pixels are {kind}, which have no known range; convert it to 8 or 16 bits')
        return image
    tags = getattr(image, 'tag_v2', {})
    top = (1 << int(_first(tags.get(258), 16))) - 1
    values = np.asarray(image).astype(np.int64)
    transparent = image.info.get('transparency')
    if tags.get(262) == 0:  # white is zero, which Pillow minds in 8 bits alone
        values = top - values
    scaled = (255 * values + top // 2) // top
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Pillow.fromarray(scaled.clip(0, 255).astype(np.uint8))


def _first(value: Any, default: int) -> Any:
    return default if value is None else value[0] if isinstance(value, tuple) else value


def _in_srgb(image: Image.Image) -> Image.Image:
    """Converts from the embedded colour profile, keeping what is transparent."""
    data = image.info.get('icc_profile')
    if image.mode == 'LAB':
        from PIL import ImageCms

        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes())
    if not isinstance(data, bytes) or not data:
        return image
    if image.mode in {'P', 'PA', 'RGBa'}:
        image = image.convert('RGBA' if _is_transparent(image) else 'RGB')
    if not _is_transparent(image):
        return _converted(image, data)
    image = image.convert('LA' if image.mode in {'1', 'L', 'LA', 'La'} else 'RGBA')
    *_, alpha = image.split()
    colours = _converted(image.convert(image.mode[:-1]), data).convert('RGB')
    colours.putalpha(alpha)
    return colours


def _converted(image: Image.Image, data: bytes) -> Image.Image:
    transform = _transform(data, image.mode)
    return image if transform is None else transform.apply(image)


@lru_cache(maxsize=16)
def _transform(data: bytes, mode: str) -> Any:
    """Pillow's transform from a profile to sRGB; None where it changes nothing or is no profile for such pixels."""
    try:
        from PIL import ImageCms

        srgb = ImageCms.createProfile('sRGB')
        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        transform = ImageCms.buildTransform(source, srgb, mode, 'RGB')
    except ImportError:
        raise _Refused(
            'it has a colour profile, which this Pillow was built without; use the Pillow that pip installs'
        ) from None
    except Exception:  # a broken profile raises whatever its parser meets
        return None
    return None if mode == 'RGB' and _is_identity(transform) else transform


def _is_identity(transform: Any) -> bool:
    """Whether colours stay, but for rounding: most photographs say that they are sRGB already."""
    from PIL import Image

    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    found = np.asarray(transform.apply(Image.fromarray(colours)))
    return bool(np.abs(found.astype(int) - colours).max() <= 2)


def _is_transparent(image: Image.Image) -> bool:
    return 'transparency' in image.info or image.getbands()[-1] in {'A', 'a'}


def _flatten(image: Image.Image) -> Image.Image:
    """Puts what is transparent on white."""
    from PIL import Image as Pillow

    if not _is_transparent(image):
        return image
    if image.mode == 'La':
        image = image.convert('LA')
    image = image.convert('RGBA')
    return Pillow.alpha_composite(Pillow.new('RGBA', image.size, 'white'), image)


@cache
def _sent_formats() -> tuple[str, ...]:
    from PIL import Image

    register_heif()
    Image.init()
    return tuple(name for name in _SENT_FORMATS if name in Image.OPEN)


@cache
def register_heif() -> None:
    """Teaches Pillow HEIC where the package for it is installed."""
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found]
    except ImportError:
        return
    register_heif_opener()
