"""`grocery`: photographs of groceries in shops (Klasson et al., Hierarchical Grocery Store Dataset, WACV 2019)."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from typing import TYPE_CHECKING

from ._files import hash_order, number, read_rows, read_text, require, require_ends, require_entry
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TREE = """\
  GroceryStoreDataset/dataset/      (root)
    train.txt
    val.txt
    test.txt
    classes.csv                     (for the catalogue's pictures)
    train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg ... (and val/, test/)
    iconic-images-and-descriptions/Fruit/Apple/Golden-Delicious/Golden-Delicious_Iconic.jpg ..."""

_LISTS = ('train.txt', 'val.txt', 'test.txt')
_GALLERIES = ('photographs', 'catalogue', 'both')


@register_data('grocery')
def grocery(
    root: Path, *, train_images: int = 40, test_images: int = 25, gallery: str = 'photographs'
) -> RetrievalData:
    """Reads the Grocery Store data set: 1,640 training photographs of 41 products, 1,000 test photographs of 40.

    The data set is one of classification, so that its own lists, which are merged, hold every product. Here, products
    with an even number are for training and those with an odd one for the test. Of each product, a part of its
    photographs is taken that is random but the same everywhere.

    Args:
        root: The folder `dataset` of the repository marcusklasson/GroceryStoreDataset.
        train_images: Photographs of a product to train on, at most; it has between 35 and 143.
        test_images: Photographs of a product to test on, at most.
        gallery: What test photographs are searched for in: 'photographs' (all other test photographs), 'catalogue'
            (one picture of each test product on white ground), or 'both' together.

    Raises:
        FileNotFoundError: A list or the images are missing.
        ValueError: An option is out of its range, or a line of a list is not in the data set's form.
    """
    if gallery not in _GALLERIES:
        raise ValueError(f'gallery must be one of {", ".join(_GALLERIES)}, got {gallery!r}')
    for name, count in (('train_images', train_images), ('test_images', test_images)):
        if count < 1:
            raise ValueError(f'{name} must be at least 1, got {count}; a large number takes all photographs')
    found = _photographs(root)
    train = [s for label in sorted(found) if label % 2 == 0 for s in _some(found[label], root, train_images)]
    test = [s for label in sorted(found) if label % 2 for s in _some(found[label], root, test_images)]
    if gallery == 'photographs':
        return RetrievalData('grocery', train, test, test, cameras=False, shared=True)
    catalogue = _catalogue(root)
    if gallery == 'catalogue':
        return RetrievalData('grocery', train, test, catalogue, cameras=False)
    # The protocol of cameras keeps a photograph from finding itself: each has its own camera, the catalogue's is 0.
    test = [Sample(s.image, s.identity, camera) for camera, s in enumerate(test, start=1)]
    return RetrievalData('grocery', train, test, [*test, *catalogue])


def _photographs(root: Path) -> dict[int, list[Sample]]:
    """All photographs by product."""
    found = defaultdict(list)
    for name in _LISTS:
        file = require_entry(root, name, TREE)
        cells = [[cell.rstrip(',') for cell in row] for row in read_rows(file, 'path, class_id, coarse_class_id')]
        samples = [Sample(root / path, number(label, 'class_id', f'{file}, {path}')) for path, label, _ in cells]
        for sample in require_ends(samples, TREE):
            found[sample.identity].append(sample)
    return found


def _some(samples: Sequence[Sample], root: Path, count: int) -> list[Sample]:
    by_name = {str(s.image.relative_to(root).as_posix()): s for s in samples}  # type: ignore[union-attr]
    return [by_name[name] for name in sorted(hash_order(by_name)[:count])]


def _catalogue(root: Path) -> list[Sample]:
    """The catalogue's picture of each test product."""
    file = require_entry(root, 'classes.csv', TREE)
    lines = csv.DictReader(io.StringIO(read_text(file, TREE), newline=''))
    samples = []
    try:
        for row in lines:
            label, path = (row[name] or '' for name in ('Class ID (int)', 'Iconic Image Path (str)'))
            where = f'{file}, line {lines.line_num}'
            if not path:
                raise ValueError(f'{where}: the image path must not be empty; restore the file.')
            identity = number(label, 'Class ID', where)
            if identity % 2:
                samples.append(Sample(require(root / path.lstrip('/'), TREE), identity))
    except KeyError as error:
        raise ValueError(f'{file}: expected a column {error}, got {", ".join(map(str, row))}.') from None
    except csv.Error as error:
        raise ValueError(f'{file}, line {lines.line_num}: this is no CSV ({error}).') from error
    return samples
