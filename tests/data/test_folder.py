import pytest
from helpers.trees import labels, plant

from sfsc_timm.data import load_data


def test_train_query_gallery_with_cameras_from_the_file_names(tmp_path):
    root = plant(
        tmp_path,
        'train/ann/x_c2.jpg', 'train/ann/deep/y_c1.PNG', 'train/bob/x_c1.jpg',
        'query/cat/x_c1.jpg',
        'gallery/cat/x_c12.jpg', 'gallery/dan/x_c2.jpg', 'gallery/dan/notes.txt', 'gallery/dan/._x_c2.jpg',
        'gallery/.cache/x_c1.jpg',
    )  # fmt: skip
    data = load_data('folder', root, camera_pattern=r'_c(\d+)')
    assert labels(data.train, root) == [
        ('train/ann/deep/y_c1.PNG', 0, 1),
        ('train/ann/x_c2.jpg', 0, 2),
        ('train/bob/x_c1.jpg', 1, 1),
    ]
    assert labels(data.query, root) == [('query/cat/x_c1.jpg', 2, 1)]
    assert labels(data.gallery, root) == [('gallery/cat/x_c12.jpg', 2, 12), ('gallery/dan/x_c2.jpg', 3, 2)]
    assert data.cameras
    assert not data.shared


def test_train_and_test_share_query_and_gallery(tmp_path):
    root = plant(tmp_path, 'train/a/1.jpg', 'test/b/1.jpg', 'test/b/2.jpg', 'test/c/1.jpg')
    data = load_data('folder', root)
    assert data.shared
    assert data.query is data.gallery
    assert not data.cameras
    assert labels(data.query, root) == [('test/b/1.jpg', 1, 0), ('test/b/2.jpg', 1, 0), ('test/c/1.jpg', 2, 0)]


def test_identity_folders_alone_are_divided_the_same_way_everywhere(tmp_path):
    root = plant(tmp_path, *(f'id{i}/{j}.jpg' for i in range(8) for j in range(2)))
    data = load_data('folder', root)
    assert data.shared
    # Pinned: sha256 of '0:id0', ... decides, on every machine.
    assert sorted({s.image.parent.name for s in data.train}) == ['id0', 'id2', 'id6', 'id7']
    assert len(data.train) == len(data.query) == 8
    assert not set(data.classes) & {s.identity for s in data.query}
    other = load_data('folder', root, seed=1)
    assert {s.image for s in other.train} != {s.image for s in data.train}
    # An added identity moves no other from one side to the other, beyond the share.
    plant(root, 'id8/0.jpg', 'id8/1.jpg')
    more = load_data('folder', root)
    assert len({s.image.parent.name for s in data.train} ^ {s.image.parent.name for s in more.train}) <= 2
    assert not load_data('folder', root, train_share=0).train


def test_camera_names_are_numbered_alphabetically(tmp_path):
    root = plant(tmp_path, 'train/a/north_1.jpg', 'test/b/south_1.jpg', 'test/b/east_1.jpg')
    data = load_data('folder', root, camera_pattern=r'^([a-z]+)_')
    assert [s.camera for s in (*data.train, *data.query)] == [1, 0, 2]


@pytest.mark.parametrize(
    'names,options,error,message',
    [
        ((), {}, FileNotFoundError, 'No identity folders with images in: .*root\nExpected tree:\n  ROOT/'),
        (('1.jpg',), {}, FileNotFoundError, 'No identity folders with images'),
        (('train/a/1.jpg', 'query/b/1.jpg'), {}, FileNotFoundError, 'Not found: .*root/gallery\nExpected tree'),
        (('query/b/1.jpg', 'gallery/b/1.jpg'), {}, FileNotFoundError, 'Not found: .*root/train\n'),
        (('train/a/1.jpg', 'test/b/1.txt'), {}, FileNotFoundError, 'No identity folders with images in: .*root/test'),
        (('train/a/1.jpg', 'test/a/1.jpg', 'test/a/2.jpg'), {}, ValueError, 'both in train and'),
        (('a/1.jpg', 'b/1.jpg'), {'camera_pattern': '_c(.)'}, ValueError, 'does not fit the file name of .*1.jpg'),
        (('a/1.jpg', 'b/1.jpg'), {'camera_pattern': '_c'}, ValueError, 'needs a group'),
        (('a/1.jpg', 'b/1.jpg'), {'camera_pattern': '_c('}, ValueError, 'not a regular expression'),
        (('a/1.jpg', 'b/1.jpg'), {'train_share': 1.0}, ValueError, r'train_share must be in \[0, 1\), got 1.0'),
    ],
)
def test_wrong_trees_and_options_are_explained(tmp_path, names, options, error, message):
    root = tmp_path / 'root'
    root.mkdir()
    with pytest.raises(error, match=message):
        load_data('folder', plant(root, *names), **options)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'Not found: {tmp_path / "absent"}'):
        load_data('folder', tmp_path / 'absent')
