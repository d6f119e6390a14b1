"""What readers of files share: listing images, and errors that show where a file should be."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ._decode import HEIF, register_heif
from ._types import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_logger = logging.getLogger(__name__)

# What cameras, scanners and instruments write. Pillow reads more, such as PDF and HDF5, which are rarely pictures.
_PICTURES = {
    *('.apng', '.bmp', '.dib', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm'),
    *('.qoi', '.tga', '.tif', '.tiff'),
}
_OPTIONAL = {'avif': ('.avif', '.avifs'), 'jpg_2000': ('.j2k', '.jp2', '.jpx'), 'webp': ('.webp',)}
_LITTER = {'thumbs.db', 'desktop.ini'}  # of file managers, beside hidden files


def require(path: Path, tree: str) -> Path:
    """Returns `path` if it exists.

    Args:
        path: The file or folder looked for.
        tree: The layout the data set should have, for the message.

    Raises:
        FileNotFoundError: It does not exist.
    """
    if path.exists():
        return path
    raise FileNotFoundError(f'Not found: {path}\nExpected tree:\n{tree}')


def require_entry(root: Path, name: str, tree: str) -> Path:
    """Returns `root / name` if it exists.

    Args:
        root: The data set's folder.
        name: What it should hold, a relative path.
        tree: The layout the data set should have, for the message.

    Raises:
        FileNotFoundError: It is missing; the message says so if it lies one folder deeper, as archives often unpack.
    """
    if (root / name).exists():
        return root / name
    found = next(iter(sorted(root.glob(f'*/{name}'))), None) if root.is_dir() else None
    hint = '' if found is None else f'It is at {found}: pass {str(found)[: -len(name) - 1]} as root.\n'
    raise FileNotFoundError(f'Not found: {root / name}\n{hint}Expected tree:\n{tree}')


def read_text(path: Path, tree: str = '') -> str:
    """Returns the text of a file.

    Args:
        path: The file.
        tree: The layout the data set should have, for the message.

    Raises:
        FileNotFoundError: It is missing, or no file.
        ValueError: It is not UTF-8; the message names it.
    """
    if not require(path, tree).is_file():  # reading a pipe would wait for ever
        raise FileNotFoundError(f'{path} is no file.' + f'\nExpected tree:\n{tree}' * bool(tree))
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path} is not UTF-8 text; save it as UTF-8 ({error.reason} at byte {error.start}).'
        ) from error


def read_rows(path: Path, columns: str, header: int = 0) -> list[list[str]]:
    """Reads a list of whitespace-separated columns.

    Args:
        path: The file.
        columns: Names of the columns, space-separated.
        header: The line that names the columns, the last one before the list; 0 if there is none.

    Raises:
        ValueError: A line has another number of columns, or the header is missing; the message gives file and line.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        cells = line.split()
        if number == header and cells != columns.split():
            raise ValueError(f'{path}, line {number}: expected the header "{columns}", got {line!r}; put it back.')
        if number <= header or not cells:
            continue
        if len(cells) != len(columns.split()):
            raise ValueError(f'{path}, line {number}: expected "{columns}", got {line!r}.')
        rows.append(cells)
    if not rows:
        raise ValueError(f'{path} lists nothing; expected lines of "{columns}".')
    return rows


def read_mapping(path: Path, columns: str) -> dict[str, str]:
    """Reads a list of two columns, in which the first has every value once.

    Raises:
        ValueError: As for `read_rows`, or a key stands there twice.
    """
    rows = read_rows(path, columns)
    found = dict(rows)
    if len(found) < len(rows):
        key = next(key for key, count in Counter(key for key, _ in rows).items() if count > 1)
        raise ValueError(f'{path} has the {columns.split(maxsplit=1)[0]} {key} twice; leave one line out.')
    return found


def require_ends(samples: list[Sample], tree: str) -> list[Sample]:
    """Returns the samples of a list whose first and last images exist.

    That is enough to see that the images lie where they should and that the list is not cut off in mid-line.

    Raises:
        FileNotFoundError: One of them is missing.
    """
    for sample in (*samples[:1], *samples[-1:]):
        require(Path(str(sample.image)), tree)
    return samples


def number(text: str, what: str, where: object, least: int = 0) -> int:
    """Returns a whole number of a list or a file name.

    Raises:
        ValueError: It is none, or out of [least, 2^31); the message says where it stands.
    """
    if not re.fullmatch(r'-?[0-9]{1,10}', text):
        raise ValueError(f'{where}: {what} must be a whole number, got {text[:40]!r}.')
    if not least <= int(text) < 2**31:
        raise ValueError(f'{where}: {what} must be a number of at least {least} and below 2^31, got {text}.')
    return int(text)


def named_samples(root: Path, folder: str, pattern: str, tree: str) -> list[Sample]:
    """Returns the images of a folder whose names give identity and camera.

    Args:
        root: The data set's folder.
        folder: Its subfolder.
        pattern: A regular expression with the groups identity and camera. Images with identity -1 are left out:
            in Market-1501's naming, which VeRi-776 shares, they are junk.
        tree: The layout the data set should have, for messages.

    Raises:
        FileNotFoundError: The folder is missing or holds no images.
        ValueError: An image's name does not fit.
    """
    samples = []
    for image in require_images(require_entry(root, folder, tree), tree):
        match = re.match(pattern, image.name)
        if match is None:
            raise ValueError(f'The name of {image} does not fit {pattern!r}; is this the right data set?')
        if match['identity'] != '-1':
            samples.append(Sample(image, int(match['identity']), int(match['camera']) - 1))
    return samples


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of pictures that Pillow reads here, lower case."""
    from PIL import Image, features

    register_heif()
    Image.init()
    found = _PICTURES.union(*(names for feature, names in _OPTIONAL.items() if features.check(feature)), HEIF)
    return frozenset(found & set(Image.registered_extensions()))


def list_images(folder: Path, *, recursive: bool = False, others: Counter[str] | None = None) -> list[Path]:
    """Returns the image files of a folder in a fixed order; hidden files are left out.

    Args:
        folder: The folder.
        recursive: Whether its subfolders are searched, too.
        others: Counts the files of other types, by suffix.
    """
    images, others = [], Counter() if others is None else others
    for file in _walk(folder) if recursive else folder.iterdir():
        hidden = any(part.startswith('.') for part in file.relative_to(folder).parts)
        suffix = file.suffix.lower()
        if suffix in image_suffixes():
            if not file.name.startswith('.') and file.is_file():
                images.append(file)
        elif not hidden and file.name.lower() not in _LITTER and file.is_file():
            others[suffix] += 1
    return sorted(images)


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and its subfolders."""

    def warn(error: OSError) -> None:
        _logger.warning('%r could not be read and was left: %s.', str(error.filename), error.strerror)

    for inner, _, names in os.walk(folder, onerror=warn):
        yield from (Path(inner, name) for name in names)


def left_out(others: Counter[str]) -> str:
    """Says how many files of other types there were, '' for none."""
    if not others:
        return ''
    counts = ', '.join(f'{count} {suffix or "without a suffix"}' for suffix, count in others.most_common())
    way = '; HEIC needs pip install pillow-heif' if set(HEIF) & set(others) else ''
    return f'{others.total()} files are no images that Pillow reads here and were left: {counts}{way}.'


def warn_left_out(folder: Path, others: Counter[str]) -> None:
    """Warns of files of other types in a folder."""
    if others:
        _logger.warning('%r: %s', str(folder), left_out(others))


def require_images(folder: Path, tree: str, *, recursive: bool = False) -> list[Path]:
    """Returns the image files of a folder, and says how many files of other types there are.

    Raises:
        FileNotFoundError: The folder does not exist or holds no images.
    """
    others: Counter[str] = Counter()
    images = list_images(require(folder, tree), recursive=recursive, others=others)
    if not images:
        raise FileNotFoundError(f'No images in: {folder} {left_out(others)}'.rstrip() + f'\nExpected tree:\n{tree}')
    warn_left_out(folder, others)
    return images


def stable_hash(*parts: object) -> bytes:
    """Hashes the parts' texts, the same in every process and on every machine (unlike Python's hash)."""
    return hashlib.sha256(':'.join(map(str, parts)).encode(errors='surrogateescape')).digest()


def hash_order(names: Iterable[str], seed: int = 0) -> list[str]:
    """Returns names in an order that is random but the same everywhere, for splits.

    Each name is hashed with the seed by itself, so an added name does not reshuffle the others.
    """
    return sorted(names, key=lambda name: stable_hash(seed, name))
