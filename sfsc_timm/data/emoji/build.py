"""Builds the `emoji` benchmark from npm packages of openly licensed emoji sets."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..._npm import npm_pack
from .._files import hash_order, read_text
from .designs import DESIGNS, Design, read_designs

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)

_LEAST_IMAGES = 4  # of an identity
_PACKAGES = '.packages'


def build_emoji(
    root: str | os.PathLike[str], *, size: int = 64, progress: Callable[[str, int, int], object] | None = None
) -> Path:
    """Fetches the pinned packages with `npm pack`, checks their sha512 and renders them into one folder.

    Identities are the emoji that at least four designs draw; half of them, by a hash, are for training. An
    interrupted build goes on where it stopped: packages are kept until the end and a design's folder appears only
    when it is complete. The same call gives the same files.

    Args:
        root: The folder to build in, for `load_data('emoji', root)`.
        size: Side of the square images, in pixels, 16 to 1024.
        progress: Called with (design, images done, images in all) while rendering.

    Returns:
        The manifest, `root / 'manifest.csv'`.

    Raises:
        FileNotFoundError: npm is not installed.
        ImportError: resvg-py, which renders SVG, is not installed.
        RuntimeError: npm failed, or a package is not the pinned one.
        ValueError: The folder was built otherwise.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size > 1024:
        raise ValueError(f'size must be a whole number of at most 1024, got {size!r}.')
    if size < 16:
        raise ValueError(f'size must be at least 16, got {size}.')
    root = Path(root).expanduser()
    manifest = root / 'manifest.csv'
    _claim(root, size)
    if not manifest.exists():
        render = _renderer()
        packages = {design.name: _fetch(design, root / _PACKAGES) for design in DESIGNS}
        pictures = read_designs(packages)
        count = Counter(key for drawn in pictures.values() for key in drawn)
        pictures = {
            name: {key: drawn[key] for key in sorted(drawn) if count[key] >= _LEAST_IMAGES}
            for name, drawn in pictures.items()
        }
        for name, drawn in pictures.items():
            if not (root / name).exists():
                _render_design(root / name, drawn, size, render, progress)
        _write(root / 'LICENSES.md', _licences())
        _write(manifest, _manifest({name: list(drawn) for name, drawn in pictures.items()}))
    shutil.rmtree(root / _PACKAGES, ignore_errors=True)
    return manifest


def _claim(root: Path, size: int) -> None:
    """Notes in the folder what it is built from, and refuses one that was built from something else."""
    build = {'size': size, 'packages': {f'{d.package}@{d.version}': d.integrity for d in DESIGNS}}
    note = root / 'build.json'
    if note.exists():
        try:
            before = json.loads(read_text(note))
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{note} is damaged ({error}); build in a new folder.') from error
        if before != build:
            raise ValueError(f'root must be a new folder, got one built with another size or other packages ({note}).')
        return
    if root.exists() and any(root.iterdir()):
        raise ValueError(f'root must be a new or empty folder, or of an earlier build, got {root} with other files.')
    root.mkdir(parents=True, exist_ok=True)
    _write(note, json.dumps(build, indent=1) + '\n')


def _renderer() -> Callable[[bytes, int], bytes]:
    """Returns a function from an SVG or WebP file to a PNG file of the size given, on white."""
    from PIL import Image

    try:
        import resvg_py
    except ImportError as error:
        raise ImportError("Rendering SVG needs resvg-py: run pip install 'sfsc-timm[emoji]'.") from error

    def render(picture: bytes, size: int) -> bytes:
        if picture.startswith(b'<svg'):
            picture = bytes(
                resvg_py.svg_to_bytes(svg_string=picture.decode(), width=size, height=size, skip_system_fonts=True)
            )
        image = Image.open(io.BytesIO(picture)).convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        square = Image.new('RGB', (size, size), 'white')
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        file = io.BytesIO()
        square.save(file, 'PNG', optimize=True)
        return file.getvalue()

    return render


def _fetch(design: Design, folder: Path) -> Path:
    """Downloads a design's package unless it is there already, and checks it."""
    specification = f'{design.package}@{design.version}'
    target = folder / f'{design.name}.tgz'
    return npm_pack(specification, design.integrity, target, 'it fetches the emoji packages')


def _render_design(
    folder: Path,
    pictures: dict[str, bytes],
    size: int,
    render: Callable[[bytes, int], bytes],
    progress: Callable[[str, int, int], object] | None,
) -> None:
    """Renders a design next to where it belongs and then renames it, so that a folder there is complete."""
    scratch = folder.with_name(f'.{folder.name}.part')
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for done, (key, picture) in enumerate(pictures.items(), start=1):
        (scratch / f'{key}.png').write_bytes(render(picture, size))
        if progress is not None:
            progress(folder.name, done, len(pictures))
    scratch.replace(folder)


def _manifest(drawn: dict[str, list[str]]) -> str:
    """Returns the CSV file: path, identity (code points), camera (design) and split of each image."""
    identities = sorted({key for keys in drawn.values() for key in keys})
    train = set(hash_order(identities)[: len(identities) // 2])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['path', 'identity', 'camera', 'split'])
    for key in identities:
        split = 'train' if key in train else 'test'
        writer.writerows([f'{name}/{key}.png', key, name, split] for name, keys in drawn.items() if key in set(keys))
    return text.getvalue()


def _licences() -> str:
    lines = [
        '# Sources and licences of the images',
        '',
        'Each folder holds one design of the emoji, rendered on white and scaled; nothing else was changed. Whoever',
        'passes images on names their authors and keeps to their licences (CC-BY-SA also asks for the same licence).',
        '',
        '| folder | author | licence | source | npm package |',
        '| --- | --- | --- | --- | --- |',
        *(f'| {d.name} | {d.author} | {d.licence} | {d.url} | {d.package}@{d.version} |' for d in DESIGNS),
    ]
    return '\n'.join(lines) + '\n'


def _write(file: Path, text: str) -> None:
    scratch = file.with_name(f'.{file.name}.part')
    scratch.write_text(text, encoding='utf-8', newline='\n')
    scratch.replace(file)
