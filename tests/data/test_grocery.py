"""The reader of the Grocery Store data set, on a miniature tree in its real layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.trees import labels, plant, write

from sfsc_timm.data import load_data

LISTS = {
    'train.txt': 'train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0\n'
    'train/Fruit/Apple/Granny-Smith/Granny-Smith_001.jpg, 1, 0\n'
    'train/Vegetables/Leek/Leek_001.jpg, 2, 1\n',
    'val.txt': 'val/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0\n'
    'val/Vegetables/Onion/Onion_001.jpg, 3, 2\n',
    'test.txt': 'test/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0\n'
    'test/Fruit/Apple/Granny-Smith/Granny-Smith_001.jpg, 1, 0\n'
    'test/Fruit/Apple/Granny-Smith/Granny-Smith_002.jpg, 1, 0\n'
    'test/Vegetables/Onion/Onion_001.jpg, 3, 2\n',
}
HEADER = (
    'Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),'
    'Iconic Image Path (str),Product Description Path (str)\r\n'
)
PICTURES = {
    name: f'iconic-images-and-descriptions/{name}/{name}_Iconic.jpg' for name in ('Apple', 'Smith', 'Leek', 'Onion')
}
CLASSES = HEADER + '\r\n'.join(f'{name},{i},C,0,/{path},/d.txt' for i, (name, path) in enumerate(PICTURES.items()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of four products, numbered 0 to 3."""
    root = write(tmp_path / 'dataset', {**LISTS, 'classes.csv': CLASSES})
    photographs = (line.split(',')[0] for text in LISTS.values() for line in text.splitlines())
    return plant(root, *photographs, *PICTURES.values())


def test_all_lists_count_and_even_products_are_for_training(root: Path) -> None:
    data = load_data('grocery', root)
    assert labels(data.train, root) == [
        ('test/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg', 0, 0),
        ('train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg', 0, 0),
        ('val/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg', 0, 0),
        ('train/Vegetables/Leek/Leek_001.jpg', 2, 0),
    ]
    assert [s.identity for s in data.query] == [1, 1, 1, 3, 3]
    assert data.query is data.gallery
    assert (data.cameras, data.shared) == (False, True)


def test_at_most_so_many_photographs_of_a_product_the_same_ones_always(root: Path) -> None:
    data = load_data('grocery', root, train_images=2, test_images=2)
    assert [s.identity for s in data.train] == [0, 0, 2]
    assert [s.identity for s in data.query] == [1, 1, 3, 3]
    assert labels(data.train, root) == labels(load_data('grocery', root, train_images=2).train, root)
    assert {s.image for s in data.query} <= {s.image for s in load_data('grocery', root).query}


def test_the_catalogue_as_the_gallery(root: Path) -> None:
    data = load_data('grocery', root, gallery='catalogue')
    assert labels(data.gallery, root) == [(PICTURES['Smith'], 1, 0), (PICTURES['Onion'], 3, 0)]
    assert len(data.query) == 5
    assert not data.cameras


def test_photographs_and_the_catalogue_and_none_finds_itself(root: Path) -> None:
    data = load_data('grocery', root, gallery='both')
    assert len(data.gallery) == 7
    assert data.cameras
    own = {s.image: (s.identity, s.camera) for s in data.gallery}
    for query in data.query:
        left_out = [image for image, label in own.items() if label == (query.identity, query.camera)]
        assert left_out == [query.image]


@pytest.mark.parametrize(
    'part', ['train.txt', 'val.txt', 'test.txt', 'val/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg']
)
def test_what_is_missing_is_named_with_the_expected_tree(root: Path, part: str) -> None:
    (root / part).unlink()
    with pytest.raises(FileNotFoundError, match=r'GroceryStoreDataset/dataset/ +\(root\)') as error:
        load_data('grocery', root)
    assert f'Not found: {root / part}' in str(error.value)


def test_a_missing_catalogue_matters_only_where_it_is_asked_for(root: Path) -> None:
    (root / PICTURES['Onion']).unlink()
    assert load_data('grocery', root).query
    with pytest.raises(FileNotFoundError, match='Onion/Onion'):
        load_data('grocery', root, gallery='both')


def test_the_repository_as_root_is_recognised(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f'pass {root} as root'):
        load_data('grocery', root.parent)


WRONG = [
    ({'gallery': 'icons'}, {}, "gallery must be one of photographs, catalogue, both, got 'icons'"),
    ({'train_images': 0}, {}, 'train_images must be at least 1, got 0'),
    ({}, {'val.txt': 'val/Leek_001.jpg 2\n'}, r'val\.txt, line 1: expected'),
    ({}, {'val.txt': 'val/Leek_001.jpg, two, 1\n'}, "class_id must be a whole number, got 'two'"),
    ({'gallery': 'both'}, {'classes.csv': 'a,b\n1,2\n'}, "expected a column 'Class ID"),
]


@pytest.mark.parametrize('options,files,message', WRONG)
def test_wrong_contents_are_explained(root: Path, options: dict, files: dict[str, str], message: str) -> None:
    write(root, files)
    with pytest.raises(ValueError, match=message):
        load_data('grocery', root, **options)
