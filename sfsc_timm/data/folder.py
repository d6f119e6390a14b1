"""`folder`: any images laid out as one folder for each identity."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from ._files import hash_order, left_out, list_images, require, warn_left_out
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TREE = """\
  ROOT/                          or  ROOT/                    or  ROOT/
    train/IDENTITY/*.jpg               train/IDENTITY/*.jpg         IDENTITY/*.jpg
    query/IDENTITY/*.jpg               test/IDENTITY/*.jpg
    gallery/IDENTITY/*.jpg"""


@register_data('folder')
def folder(root: Path, *, camera_pattern: str | None = None, train_share: float = 0.5, seed: int = 0) -> RetrievalData:
    r"""Reads folders of identities, in one of three layouts.

    With `train`, `query` and `gallery` in the root these are the splits. With `train` and `test`, or with identity
    folders alone, query and gallery are the same images and none retrieves itself; identity folders alone are
    divided between training and test by a hash of (seed, folder name).

    Args:
        root: The folder.
        camera_pattern: A regular expression searched for in each file name, whose first group is the camera (as
            `_c(\d+)` finds 3 in `0002_c3_07.jpg`). None if there are no cameras.
        train_share: Share of the identities that are for training, in [0, 1), where the folders do not tell.
        seed: Seed of that division.

    Raises:
        FileNotFoundError: The root, a split or the images are missing.
        ValueError: A file name does not fit `camera_pattern`, or an identity is both in train and in the test.
    """
    if not 0 <= train_share < 1:
        raise ValueError(f'train_share must be in [0, 1), got {train_share}.')
    require(root, TREE)
    if (root / 'query').is_dir() or (root / 'gallery').is_dir():
        splits = {split: _identity_folders(root / split) for split in ('train', 'query', 'gallery')}
    elif (root / 'test').is_dir():
        splits = {split: _identity_folders(root / split) for split in ('train', 'test')}
    else:
        folders = _identity_folders(root)
        order = hash_order(folders, seed)
        count = round(train_share * len(order))
        splits = {
            'train': {name: folders[name] for name in sorted(order[:count])},
            'test': {name: folders[name] for name in sorted(order[count:])},
        }
    names = sorted(set().union(*splits.values()))
    number = {name: i for i, name in enumerate(names)}
    camera = _cameras((f for folders in splits.values() for files in folders.values() for f in files), camera_pattern)
    samples = {
        split: [Sample(f, number[name], camera[f]) for name, files in folders.items() for f in files]
        for split, folders in splits.items()
    }
    query, gallery = (samples.get(split, samples.get('test', [])) for split in ('query', 'gallery'))
    return RetrievalData(
        root.resolve().name,
        samples['train'],
        query,
        gallery,
        cameras=camera_pattern is not None,
        shared='test' in samples,
    )


def _identity_folders(split: Path) -> dict[str, list[Path]]:
    require(split, TREE)
    others: Counter[str] = Counter()
    subfolders = sorted(f for f in split.iterdir() if f.is_dir() and not f.name.startswith('.'))
    found = {subfolder.name: list_images(subfolder, recursive=True, others=others) for subfolder in subfolders}
    found = {name: images for name, images in found.items() if images}
    if not found:
        raise FileNotFoundError(
            f'No identity folders with images in: {split} {left_out(others)}'.rstrip() + f'\nExpected tree:\n{TREE}'
        )
    warn_left_out(split, others)
    return found


def _cameras(files: Iterable[Path], pattern: str | None) -> dict[Path, int]:
    """Numbers the cameras: as the file names do if they are numbers, else in alphabetical order."""
    if pattern is None:
        return dict.fromkeys(files, 0)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f'camera_pattern {pattern!r} is not a regular expression: {error}.') from error
    if expression.groups < 1:
        raise ValueError(f'camera_pattern {pattern!r} needs a group in parentheses that is the camera.')
    names = {}
    for file in files:
        match = expression.search(file.name)
        if match is None:
            raise ValueError(f'camera_pattern {pattern!r} does not fit the file name of {file}.')
        names[file] = match[1]
    known = sorted(set(names.values()))
    numbers = all(name.isdecimal() and len(name) < 10 for name in known)
    number = {name: int(name) if numbers else i for i, name in enumerate(known)}
    return {file: number[name] for file, name in names.items()}
