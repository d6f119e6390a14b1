"""Images that are none."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers.trees import write
from PIL import Image

from .case import Case
from .materials import DEVICE, Materials


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks
    )


def _encoded(kind: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def damaged_images() -> Iterator[tuple[str, str, bytes]]:
    """Name of the damage, suffix and content."""
    for kind, suffix in (
        ('JPEG', 'jpg'),
        ('PNG', 'png'),
        ('GIF', 'gif'),
        ('TIFF', 'tif'),
        ('WEBP', 'webp'),
        ('BMP', 'bmp'),
        ('PPM', 'ppm'),
    ):
        whole = _encoded(kind)
        for share in (0.02, 0.5, 0.85):
            yield f'{kind} cut to {share:.0%}', suffix, whole[: int(share * len(whole))]
        random = np.random.default_rng(1)
        head = bytearray(whole)
        head[: min(40, len(head))] = random.integers(0, 256, min(40, len(head)), np.uint8).tobytes()
        yield f'{kind} with a broken head', suffix, bytes(head)
    yield 'empty', 'jpg', b''
    yield 'text', 'jpg', b'hello'
    yield 'HTML', 'png', b'<html><body>404</body></html>'
    header = struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0)
    yield 'a bomb', 'png', _png((b'IHDR', header), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b''))
    huge = struct.pack('>IIBBBBB', 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    yield 'a size of 2^31', 'png', _png((b'IHDR', huge), (b'IDAT', b''), (b'IEND', b''))
    thread = struct.pack('>IIBBBBB', 1, 50_000, 8, 0, 0, 0, 0)
    yield 'a thread', 'png', _png((b'IHDR', thread), (b'IDAT', zlib.compress(bytes(100_000))), (b'IEND', b''))
    text = zlib.compress(bytes(20_000_000))
    small = struct.pack('>IIBBBBB', 4, 4, 8, 0, 0, 0, 0)
    yield (
        'a text bomb',
        'png',
        _png((b'IHDR', small), (b'zTXt', b'a\0\0' + text), (b'IDAT', zlib.compress(bytes(20))), (b'IEND', b'')),
    )
    yield 'no size', 'png', _png((b'IHDR', struct.pack('>IIBBBBB', 0, 0, 8, 2, 0, 0, 0)), (b'IEND', b''))
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(file, 'TIFF')
    yield 'floating-point pixels', 'tif', file.getvalue()
    yield 'HEIC that is none', 'heic', b'\0\0\0\x18ftypheic' + bytes(50)
    yield 'AVIF that is none', 'avif', b'\0\0\0\x18ftypavif' + bytes(50)
    yield 'an SVG', 'jpg', b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    yield 'an EPS', 'jpg', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF'


def images(materials: Materials) -> Iterator[Case]:
    """Damaged images among others in a folder to index, and as queries."""
    for name, suffix, content in damaged_images():

        def query(folder: Path, suffix: str = suffix, content: bytes = content) -> list[str]:
            (folder / f'bad.{suffix}').write_bytes(content)
            return [
                'search',
                str(materials.gallery),
                str(folder / f'bad.{suffix}'),
                '--checkpoint',
                str(materials.narrow),
                *DEVICE,
            ]

        def index(folder: Path, suffix: str = suffix, content: bytes = content) -> list[str]:
            (folder / 'photos').mkdir()
            (folder / 'photos' / f'bad.{suffix}').write_bytes(content)
            places = ['--checkpoint', str(materials.narrow), '--output', str(folder / 'gallery')]
            return ['index', str(folder / 'photos'), *places, *DEVICE]

        needle = rf'bad\.{suffix}|1 \.{suffix}'
        yield Case('images', f'{name}, as a query', query, needle)
        if suffix in {'jpg', 'png', 'tif'}:
            yield Case('images', f'{name}, in a folder', index, needle)
    places: list[tuple[str, Any]] = [
        ('no file', lambda folder: folder / 'none.jpg'),
        ('an empty folder', lambda folder: folder),
        ('a device', lambda folder: Path('/dev/zero')),
    ]

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / 'pipe.jpg')
        return folder / 'pipe.jpg'

    def texts(folder: Path) -> Path:
        return write(folder, {'a.txt': 'x', 'b.mov': 'x'})

    for name, place in [*places, ('a pipe', pipe), ('a folder of texts', texts)]:
        yield Case(
            'images',
            f'{name}, as a query',
            lambda folder, place=place: [
                'search',
                str(materials.gallery),
                str(place(folder)),
                '--checkpoint',
                str(materials.narrow),
                *DEVICE,
            ],
            r'none\.jpg|case\d+|pipe\.jpg|a\.txt|zero|\d',
        )


GENERATORS = (images,)
