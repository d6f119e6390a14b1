"""Fifty files as people have them: sizes, orientations, transparency, depths, formats; for comparing two decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

_ORIENTATION = 0x0112


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft colours with shapes on them."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8)).resize((width, height), 3)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(1, max(2, width // 2)), random.integers(1, max(2, height // 2))
        colour = tuple(random.integers(0, 256, 3).tolist())
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    return image


def _turned(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return {'exif': exif}


def _see_through(width: int, height: int) -> Image.Image:
    """A scene whose alpha goes from nothing to all, with a hole."""
    image = scene(width, height, 3).convert('RGBA')
    alpha = np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8)
    alpha[height // 3 : height // 2] = 0
    image.putalpha(Image.fromarray(alpha))
    return image


def _palette_with_hole(width: int, height: int) -> Image.Image:
    image = scene(width, height, 4).quantize(32)
    image.info['transparency'] = int(np.asarray(image)[height // 2, width // 2])
    return image


def _deep(width: int, height: int) -> Image.Image:
    grey = np.asarray(scene(width, height, 5).convert('L')).astype(np.uint16)
    return Image.fromarray(grey * 257)


def _two_frames(path: Path) -> None:
    scene(120, 90, 6).save(path, save_all=True, append_images=[scene(120, 90, 7)])


def make_pictures(folder: Path) -> list[Path]:
    """Writes the files; their names say what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: list[tuple[str, Image.Image | Callable[[Path], None], dict[str, Any]]] = []
    for suffix, options in (('jpg', {'quality': 90}), ('png', {}), ('webp', {'lossless': True})):
        plain += [(f'turned {i}.{suffix}', scene(150, 100, i), {**options, **_turned(i)}) for i in range(1, 9)]
    sizes = ((16, 16), (64, 64), (65, 64), (33, 500), (1500, 100), (3, 2), (127, 641), (2000, 1500))
    plain += [(f'size {w} x {h}.png', scene(w, h, w), {}) for w, h in sizes]
    plain += [
        ('photograph.jpg', scene(4000, 3000, 8), {'quality': 85}),
        ('progressive.jpg', scene(1200, 900, 9), {'progressive': True}),
        ('full colour.jpg', scene(640, 480, 10), {'subsampling': 0, 'quality': 95}),
        ('rough.jpg', scene(640, 480, 11), {'quality': 20}),
        ('grey.jpg', scene(300, 200, 12).convert('L'), {}),
        ('alpha.png', _see_through(160, 120), {}),
        ('grey alpha.png', _see_through(160, 120).convert('LA'), {}),
        ('clear.png', Image.new('RGBA', (50, 40), (200, 30, 60, 0)), {}),
        ('palette.png', scene(200, 150, 13).quantize(64), {}),
        ('palette with a hole.png', _palette_with_hole(200, 150), {}),
        ('colour key.png', Image.new('RGB', (60, 60), (10, 20, 30)), {'transparency': (10, 20, 30)}),
        ('deep grey.png', _deep(180, 140), {}),
        ('two colours.png', scene(100, 80, 14).convert('1'), {}),
        ('see through.gif', _palette_with_hole(120, 90), {}),
        ('moving.gif', _two_frames, {}),
        ('plain.bmp', scene(90, 120, 15), {}),
        ('lossy.webp', scene(400, 300, 16), {'quality': 80}),
        ('alpha.webp', _see_through(160, 120), {'lossless': True}),
    ]
    made = []
    for name, content, options in plain:
        path = folder / name
        if isinstance(content, Image.Image):
            content.save(path, **options)
        else:
            content(path)
        made.append(path)
    return made
