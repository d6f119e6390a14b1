"""`msmt17`: person re-identification (Wei et al., Person Transfer GAN to Bridge Domain Gap, CVPR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import number, read_rows, require_ends, require_entry
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  MSMT17_V1/ or MSMT17_V2/          (root)
    train/  or  mask_train_v2/      0000/0000_000_01_0303morning_0008_0.jpg ...
    test/   or  mask_test_v2/       0000/0000_000_01_0303morning_0022_0.jpg ...
    list_train.txt
    list_val.txt
    list_query.txt
    list_gallery.txt"""


@register_data('msmt17')
def msmt17(root: Path, *, validation: bool = True) -> RetrievalData:
    """Reads MSMT17: 32,621 training images of 1,041 persons, 11,659 queries and 82,161 gallery images of 3,060.

    Version 2 differs from version 1 in the names of two folders and in its blurred faces; which one it is, is seen
    from the folders. Both count persons from 0 again in the test, so test identities are moved behind the training's.

    Args:
        root: The unpacked folder.
        validation: Whether the images of list_val.txt, of the same persons as list_train.txt, are trained on too,
            as in published results.

    Raises:
        FileNotFoundError: A folder or list is missing.
        ValueError: A line of a list is not in the data set's form.
    """
    version = ('mask_train_v2', 'mask_test_v2') if (root / 'mask_train_v2').exists() else ('train', 'test')
    train_folder, test_folder = (require_entry(root, folder, TREE) for folder in version)
    train = _read(root, 'list_train.txt', train_folder)
    if validation:
        train += _read(root, 'list_val.txt', train_folder)
    first = 1 + max(sample.identity for sample in train)
    query, gallery = (_read(root, name, test_folder, first) for name in ('list_query.txt', 'list_gallery.txt'))
    return RetrievalData('msmt17', train, query, gallery)


def _read(root: Path, name: str, folder: Path, first: int = 0) -> list[Sample]:
    """Reads lines of an image's path in `folder` and its identity, which is counted from `first`."""
    file = require_entry(root, name, TREE)
    samples = []
    for path, identity in read_rows(file, 'path identity'):
        # identity _ number _ camera _ date and time of day _ frame _ box
        parts = path.rsplit('/', 1)[-1].split('_')
        if len(parts) < 4:
            raise ValueError(f'{file}: the image name {path!r} has no camera as its third part.')
        camera = number(parts[2], 'the camera', f'{file}, {path}', least=1)
        samples.append(Sample(folder / path, first + number(identity, 'the identity', f'{file}, {path}'), camera - 1))
    return require_ends(samples, TREE)
