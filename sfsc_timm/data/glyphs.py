"""`glyphs`: a retrieval benchmark drawn at run time from the fonts inside the matplotlib package.

Identity is the character, camera is the typeface: find the letter you saw in one typeface among all letters in the
others. There is nothing to download, and a small network learns it in minutes on a CPU.
"""

from __future__ import annotations

import math
import struct
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter, ImageFont

from ._files import hash_order, stable_hash
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

# Left out: Computer Modern (cmr10, ...), whose character maps follow TeX's encoding (there U+00C0 is a Greek Gamma);
# the display and size variants, which hold a few symbols; and Last Resort, which has one glyph for each block.
TYPEFACES = (
    *(f'DejaVuSans{style}' for style in ('', '-Oblique', '-Bold', '-BoldOblique')),
    *(f'DejaVuSansMono{style}' for style in ('', '-Oblique', '-Bold', '-BoldOblique')),
    *(f'DejaVuSerif{style}' for style in ('', '-Italic', '-Bold', '-BoldItalic')),
    *(f'STIXGeneral{style}' for style in ('', 'Italic', 'Bol', 'BolIta')),
)
"""The cameras, in order."""

_LEAST_TYPEFACES = 8  # of an identity; about half, so that most have letters of both families
_MOST_CHARACTERS = 10_000  # more than the typefaces have
_BRAILLE = range(0x2800, 0x2900)  # centred in its box, a pattern is told from its shifted copies by nothing
_REFERENCE_SIZE = 24  # pixels per em at which look-alikes are found, whatever the image size
_MARGIN = 2
_EM = 0.72  # of the image's side; larger glyphs are scaled down to fit


@register_data('glyphs', needs_root=False)
def glyphs(
    *,
    size: int = 32,
    seed: int = 0,
    distortion: float = 1.0,
    train_identities: int | None = None,
    test_identities: int | None = None,
    queries: int = 2,
) -> RetrievalData:
    """Renders the benchmark, with Market-1501's protocol.

    Half of the characters are for training, the others for the test, by a hash of (seed, character). The gallery
    holds one image of each test character in each of its typefaces. Queries are further images, distorted anew, of
    some of these typefaces; the gallery's image of the same character in the same typeface does not count.

    Args:
        size: Side of the square images, in pixels, 16 to 512.
        seed: Seed of the split, of the queries and of the distortions.
        distortion: Strength of what tells the typefaces apart beside their design (slant, scale, ink and paper, blur,
            each typeface its own) and of what differs between images (position, rotation, noise); 0 for clean
            black on white, at most 2.
        train_identities: At most so many training characters; None for all.
        test_identities: At most so many test characters; None for all.
        queries: Query images of each test character, at least 1.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if size > 512:
        raise ValueError(f'size must be at most 512, got {size}.')
    for name, value, least in (('size', size, 16), ('seed', seed, 0), ('queries', queries, 1)):
        if value < least:
            raise ValueError(f'{name} must be at least {least}, got {value}.')
    for name, limit in (('train_identities', train_identities), ('test_identities', test_identities)):
        _limit(name, limit, _MOST_CHARACTERS)  # before the fonts are compared, which takes its time
    if not 0 <= distortion <= 2:
        raise ValueError(f'distortion must be in [0, 2], got {distortion}.')
    typefaces = _identities()
    order = hash_order(typefaces, seed)
    half = len(order) // 2
    train = order[: _limit('train_identities', train_identities, half)]
    test = order[half:][: _limit('test_identities', test_identities, len(order) - half)]
    number = {character: i for i, character in enumerate(sorted(typefaces))}
    artist = _Artist(size, seed, distortion)

    def draw(characters: Iterable[str], view: int, most: int | None = None) -> list[Sample]:
        samples = []
        for character in characters:
            cameras = sorted(typefaces[character], key=lambda camera: stable_hash(seed, character, camera))[:most]
            for camera in sorted(cameras):
                samples.append(Sample(artist.draw(character, camera, view), number[character], camera))  # noqa: PERF401
        return samples

    return RetrievalData('glyphs', train=draw(train, 0), query=draw(test, 1, queries), gallery=draw(test, 0))


def glyph_characters() -> list[str]:
    """The characters of the benchmark: that of identity i stands at place i.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return sorted(_identities())


def _limit(name: str, value: int | None, most: int) -> int:
    if value is None:
        return most
    if not 2 <= value <= most:
        raise ValueError(f'{name} must be in [2, {most}], got {value}.')
    return value


@cache
def _font_folder() -> Path:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(
            "The data set 'glyphs' is drawn with the fonts inside the matplotlib package, which is not installed; "
            "run pip install 'sfsc-timm[plots]'."
        ) from error
    return Path(mpl.get_data_path()) / 'fonts' / 'ttf'


@cache
def _coverage(typeface: str) -> frozenset[str]:
    """The letters, digits, punctuation and symbols that a typeface really has."""
    from fontTools.ttLib import TTFont

    with TTFont(_font_folder() / f'{typeface}.ttf', lazy=True) as font:
        names: dict[int, str] = font.getBestCmap() or {}
    characters = (chr(code) for code, name in names.items() if name != '.notdef' and code not in _BRAILLE)
    return frozenset(c for c in characters if unicodedata.category(c)[0] in 'LNPS')


def _mask(character: str, typeface: str, em: int) -> Image.Image | None:
    """The character's ink, white on black, cut to its bounding box and a margin; None where it leaves no ink."""
    ink = _font(typeface, em).getmask(character, mode='L')
    if not all(ink.size):
        return None
    image = Image.frombytes('L', ink.size, bytes(ink))
    box = image.getbbox()
    # Cropping beyond the border pads: the interpolation of the transform needs some room.
    left, top, right, bottom = box or (0, 0, 0, 0)
    return image.crop((left - _MARGIN, top - _MARGIN, right + _MARGIN, bottom + _MARGIN)) if box else None


@cache
def _font(typeface: str, em: int) -> ImageFont.FreeTypeFont:
    # The basic layout does not depend on whether Pillow was built with Raqm.
    return ImageFont.truetype(str(_font_folder() / f'{typeface}.ttf'), em, layout_engine=ImageFont.Layout.BASIC)


@cache
def _identities() -> dict[str, tuple[int, ...]]:
    """The characters that are told apart, each with its typefaces (places in `TYPEFACES`).

    Characters that look the same, such as Latin A and Greek Alpha, are one identity and only the first is kept. They
    look the same when at least a quarter of the typefaces that have both draw them pixel for pixel alike.
    """
    typefaces = defaultdict(list)
    for camera, typeface in enumerate(TYPEFACES):
        for character in _coverage(typeface):
            typefaces[character].append(camera)
    drawn = defaultdict(list)
    for character, cameras in typefaces.items():
        for camera in cameras if len(cameras) >= _LEAST_TYPEFACES else ():
            mask = _mask(character, TYPEFACES[camera], _REFERENCE_SIZE)
            if mask is not None:
                drawn[character].append((camera, mask.size, mask.tobytes()))
    masks = {c: shapes for c, shapes in sorted(drawn.items()) if len(shapes) >= _LEAST_TYPEFACES}
    repeated = _look_alikes(masks)
    return {c: tuple(camera for camera, *_ in shapes) for c, shapes in masks.items() if c not in repeated}


def _look_alikes(masks: dict[str, list[tuple[int, tuple[int, int], bytes]]]) -> set[str]:
    """Returns the characters that look like an earlier one."""
    same = defaultdict(list)
    for character, drawn in masks.items():
        for mask in drawn:
            same[mask].append(character)
    alike = Counter(pair for characters in same.values() for pair in combinations(characters, 2))
    cameras = {character: {camera for camera, *_ in drawn} for character, drawn in masks.items()}
    return {second for (first, second), n in alike.items() if 4 * n >= len(cameras[first] & cameras[second])}


class _Artist:
    """Draws characters the way each typeface's camera sees them."""

    def __init__(self, size: int, seed: int, distortion: float) -> None:
        self.size = size
        self.seed = seed
        self.distortion = distortion
        self._looks = [self._look(camera) for camera in range(len(TYPEFACES))]
        noise = np.random.default_rng(seed).random((4 * size, 4 * size), dtype=np.float32)
        self._noise = 8 * distortion * (2 * noise - 1)

    def _look(self, camera: int) -> tuple[float, ...]:
        """A typeface's turn (degrees), log zoom, log stretch, slant, blur (pixels), ink and paper (grey values)."""
        draw = np.random.default_rng([self.seed, camera]).uniform
        geometry = [draw(-most, most) * self.distortion for most in (7.5, 0.08, 0.1, 0.1)]
        blur = draw(0, 0.5) * self.distortion * self.size / 32
        ink, paper = draw(0, 50) * self.distortion, 255 - draw(0, 50) * self.distortion
        return (*geometry, blur, ink, paper)

    def draw(self, character: str, camera: int, view: int) -> np.ndarray:
        """Draws view number `view` of a character, uint8 of shape (size, size)."""
        mask = _mask(character, TYPEFACES[camera], round(_EM * self.size))
        assert mask is not None, 'only characters that leave ink are identities'  # noqa: S101
        # Eight numbers from the hash: a NumPy generator for each image would take as long as the drawing.
        draws = struct.unpack('<8I', stable_hash(self.seed, camera, view, character))
        blur, ink, paper = self._looks[camera][4:]
        image = self._placed(mask, self._looks[camera][:4], [self.distortion * (d / 2**31 - 1) for d in draws[:4]])
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        grey = np.asarray(image) * np.float32((ink - paper) / 255) + np.float32(paper)
        top, left = (d % (3 * self.size) for d in draws[4:6])
        grey += self._noise[top : top + self.size, left : left + self.size]
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)

    def _placed(self, mask: Image.Image, look: tuple[float, ...], jitter: list[float]) -> Image.Image:
        """Fits a mask into the square, by the typeface's geometry and the image's own deviation from it."""
        turn, zoom, stretch, slant = look
        fit = min(1.0, (self.size - 2) / (max(mask.size) - 2 * _MARGIN))
        scale = fit * math.exp(zoom + 0.05 * jitter[1])
        coefficients = _backwards(
            math.radians(turn + 4 * jitter[0]),
            (scale * math.exp(stretch / 2), scale * math.exp(-stretch / 2)),
            slant,
            (self.size * (0.5 + 0.03 * jitter[2]), self.size * (0.5 + 0.03 * jitter[3])),
            (mask.width / 2, mask.height / 2),
        )
        square = self.size, self.size
        return mask.transform(square, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def _backwards(
    turn: float,
    scale: tuple[float, float],
    slant: float,
    centre: tuple[float, float],
    source: tuple[float, float],
) -> tuple[float, ...]:
    """Pillow's affine coefficients, from output to input pixels.

    Forwards, the input is scaled, slanted and turned about `source`, which lands on `centre`.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    # Inverse of [[cos, -sin], [sin, cos]] [[1, slant], [0, 1]] diag(scale).
    a, b = (cos + slant * sin) / scale[0], (sin - slant * cos) / scale[0]
    d, e = -sin / scale[1], cos / scale[1]
    x, y = centre
    return a, b, source[0] - a * x - b * y, d, e, source[1] - d * x - e * y
