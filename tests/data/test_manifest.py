import pytest
from helpers.trees import labels, plant, write

from sfsc_timm.data import DISTRACTOR, load_data

SPLIT = """\
path,identity,camera,split
a/1.jpg,ann,north,train
a/2.jpg,ann,south,train
b/1.jpg,bob,north,query
b/2.jpg,bob,south,gallery
c/1.jpg,distractor,east,gallery
c/2.jpg,-1,east,gallery
"""
SHARED = """\
split,path,identity
train,1.jpg,7
test,2.jpg,8
test,3.jpg,8
"""


def test_splits_with_cameras(tmp_path):
    plant(tmp_path, 'a/1.jpg')
    data = load_data('manifest', write(tmp_path, {'toy.csv': SPLIT}) / 'toy.csv')
    assert data.name == 'toy'
    assert labels(data.train, tmp_path) == [('a/1.jpg', 0, 1), ('a/2.jpg', 0, 2)]
    assert labels(data.query, tmp_path) == [('b/1.jpg', 1, 1)]
    assert labels(data.gallery, tmp_path) == [
        ('b/2.jpg', 1, 2),
        ('c/1.jpg', DISTRACTOR, 0),
        ('c/2.jpg', DISTRACTOR, 0),
    ]
    assert data.cameras
    assert not data.shared


def test_shared_test_without_cameras(tmp_path):
    plant(tmp_path, '1.jpg')
    data = load_data('manifest', write(tmp_path, {'toy.csv': '\ufeff' + SHARED}) / 'toy.csv')
    assert data.query is data.gallery
    assert [s.identity for s in data.query] == [1, 1]
    assert not data.cameras


@pytest.mark.parametrize(
    'text,message',
    [
        ('path,identity\n', 'has no column split'),
        ('', 'has no column identity, path, split'),
        ('path,identity,split\n', 'lists no images'),
        (SPLIT.replace('query', 'probe'), r"line 4: split must be train, query, gallery or test, got 'probe'"),
        (SPLIT.replace('bob,north', ',north'), 'line 4: path and identity must not be empty'),
        (SPLIT.replace('a/2.jpg', ''), 'line 3: path and identity must not be empty'),
        (SPLIT.replace('bob,north', 'bob,'), 'camera must be given for all images or for none'),
        (SPLIT.replace('query', 'test'), 'split is either test, or query and gallery'),
        (SPLIT.replace('bob', 'ann'), 'both in train and'),
    ],
)
def test_wrong_manifests_are_explained(tmp_path, text, message):
    plant(tmp_path, 'a/1.jpg')
    with pytest.raises(ValueError, match=message):
        load_data('manifest', write(tmp_path, {'toy.csv': text}) / 'toy.csv')


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'Not found: .*toy\.csv\nExpected tree'):
        load_data('manifest', tmp_path / 'toy.csv')
    with pytest.raises(FileNotFoundError, match=r'Not found: .*a/1\.jpg'):
        load_data('manifest', write(tmp_path, {'toy.csv': SPLIT}) / 'toy.csv')
