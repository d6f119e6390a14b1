import shutil

import pytest
from helpers import trees
from helpers.trees import labels, plant, write

from sfsc_timm.data import DISTRACTOR, load_data


def make(name, root):
    if name in {'market1501', 'veri776'}:
        return plant(root, *getattr(trees, name.upper()))
    return getattr(trees, name)(root)


def test_market1501_drops_junk_and_keeps_distractors(tmp_path):
    data = load_data('market1501', make('market1501', tmp_path))
    assert labels(data.train, tmp_path) == [
        ('bounding_box_train/0002_c1s1_000451_03.jpg', 2, 0),
        ('bounding_box_train/0002_c2s1_000301_01.jpg', 2, 1),
        ('bounding_box_train/0007_c3s3_077419_03.jpg', 7, 2),
    ]
    assert [s.identity for s in data.training] == [0, 0, 1]
    assert labels(data.query, tmp_path) == [
        ('query/0001_c1s1_001051_00.jpg', 1, 0),
        ('query/0003_c6s1_009376_00.jpg', 3, 5),
    ]
    assert labels(data.gallery, tmp_path) == [
        ('bounding_box_test/0000_c1s1_000151_01.jpg', DISTRACTOR, 0),
        ('bounding_box_test/0001_c1s1_001051_03.jpg', 1, 0),
        ('bounding_box_test/0001_c2s1_000976_01.jpg', 1, 1),
        ('bounding_box_test/0003_c3s2_000001_02.jpg', 3, 2),
    ]
    assert (data.cameras, data.shared, data.ks) == (True, False, (1, 5, 10))
    assert data.summary().splitlines()[-1].split() == ['gallery', '4', '2', '3', '1']


def test_veri776(tmp_path):
    data = load_data('veri776', make('veri776', tmp_path))
    assert [(s.identity, s.camera) for s in data.train] == [(1, 0), (1, 15), (776, 19)]
    assert [(s.identity, s.camera) for s in data.query] == [(2, 1)]
    assert [(s.identity, s.camera) for s in data.gallery] == [(2, 1), (2, 2), (5, 0)]
    assert (data.cameras, data.shared, data.ks) == (True, False, (1, 5, 10))


@pytest.mark.parametrize('train,test', [('train', 'test'), ('mask_train_v2', 'mask_test_v2')])
def test_msmt17_in_both_versions(tmp_path, train, test):
    data = load_data('msmt17', trees.msmt17(tmp_path, train, test))
    assert labels(data.train, tmp_path) == [
        (f'{train}/0000/0000_000_01_0303morning_0008_0.jpg', 0, 0),
        (f'{train}/0001/0001_001_15_0303noon_0010_1.jpg', 1, 14),
        (f'{train}/0001/0001_002_04_0303noon_0011_0.jpg', 1, 3),
    ]
    # Test persons are counted from 0 again in the lists; they are others than the training's.
    assert labels(data.query, tmp_path) == [(f'{test}/0000/0000_000_05_0303morning_0022_0.jpg', 2, 4)]
    assert labels(data.gallery, tmp_path) == [
        (f'{test}/0000/0000_003_06_0303morning_0030_0.jpg', 2, 5),
        (f'{test}/0001/0001_000_05_0302evening_0001_0.jpg', 3, 4),
    ]
    assert all(s.image.is_file() for s in (*data.train, *data.query, *data.gallery))
    assert len(load_data('msmt17', tmp_path, validation=False).train) == 2


def test_cub200_splits_classes_in_halves(tmp_path):
    data = load_data('cub200', trees.cub200(tmp_path))
    assert [s.identity for s in data.train] == [1, 100]
    assert [s.identity for s in data.query] == [101, 101, 200]
    assert data.query is data.gallery
    assert (data.cameras, data.shared, data.ks) == (False, True, (1, 2, 4, 8))
    assert all(s.image.is_file() for s in (*data.train, *data.query))


def test_sop(tmp_path):
    data = load_data('sop', trees.sop(tmp_path))
    assert labels(data.train, tmp_path) == [
        ('bicycle_final/111085122871_0.JPG', 1, 0),
        ('bicycle_final/111085122871_1.JPG', 1, 0),
    ]
    assert [s.identity for s in data.query] == [11319, 11319, 11320]
    assert data.query is data.gallery
    assert (data.cameras, data.shared, data.ks) == (False, True, (1, 10, 100, 1000))


@pytest.mark.parametrize('partition', ['Eval/list_eval_partition.txt', 'list_eval_partition.txt'])
@pytest.mark.parametrize('images', ['Img', '.'])
def test_inshop_in_all_layouts(tmp_path, partition, images):
    data = load_data('inshop', trees.inshop(tmp_path, partition, images))
    assert [s.identity for s in data.train] == [2, 2]
    assert [(s.image.name, s.identity) for s in data.query] == [('02_1_front.jpg', 1)]
    assert [(s.image.name, s.identity) for s in data.gallery] == [('02_3_back.jpg', 1)]
    assert all(s.image.is_file() for s in (*data.train, *data.query, *data.gallery))
    assert (data.cameras, data.shared, data.ks) == (False, False, (1, 10, 20, 30))


PARTS = [
    ('market1501', 'bounding_box_train'),
    ('market1501', 'query'),
    ('market1501', 'bounding_box_test'),
    ('veri776', 'image_train'),
    ('veri776', 'image_query'),
    ('veri776', 'image_test'),
    ('msmt17', 'train'),
    ('msmt17', 'test'),
    ('msmt17', 'list_train.txt'),
    ('msmt17', 'list_val.txt'),
    ('msmt17', 'list_query.txt'),
    ('msmt17', 'list_gallery.txt'),
    ('cub200', 'images'),
    ('cub200', 'images.txt'),
    ('cub200', 'image_class_labels.txt'),
    ('sop', 'Ebay_train.txt'),
    ('sop', 'Ebay_test.txt'),
    ('sop', 'bicycle_final/111085122871_0.JPG'),
    ('inshop', 'Eval/list_eval_partition.txt'),
    ('inshop', 'Img/img'),
]


@pytest.mark.parametrize('name,part', PARTS)
def test_what_is_missing_is_named_with_the_expected_tree(tmp_path, name, part):
    root = make(name, tmp_path / 'data')
    (shutil.rmtree if (root / part).is_dir() else type(root).unlink)(root / part)
    with pytest.raises(FileNotFoundError) as error:
        load_data(name, root)
    lines = str(error.value).splitlines()
    assert lines[0] == f'Not found: {root / part}'
    assert lines[1] == 'Expected tree:'
    assert '(root)' in lines[2]


@pytest.mark.parametrize('name', ['market1501', 'veri776', 'msmt17', 'cub200', 'sop', 'inshop'])
def test_a_root_one_folder_too_high_is_recognised(tmp_path, name):
    make(name, tmp_path / 'unpacked')
    with pytest.raises(FileNotFoundError, match=f'pass {tmp_path / "unpacked"} as root'):
        load_data(name, tmp_path)


@pytest.mark.parametrize('name,folder', [('market1501', 'query'), ('veri776', 'image_test')])
def test_an_empty_folder_is_named(tmp_path, name, folder):
    root = make(name, tmp_path)
    shutil.rmtree(root / folder)
    (root / folder).mkdir()
    with pytest.raises(FileNotFoundError, match=f'No images in: {root / folder}\nExpected tree:'):
        load_data(name, root)


def test_moved_images_are_noticed(tmp_path):
    root = trees.msmt17(tmp_path)
    shutil.move(root / 'test' / '0000', root / 'test' / 'moved')
    with pytest.raises(FileNotFoundError, match=r'Not found: .*/test/0000/0000_000_05_0303morning_0022_0\.jpg'):
        load_data('msmt17', root)


PARTITION = 'Eval/list_eval_partition.txt'
CUT_OFF = trees.INSHOP_PARTITION.replace('4', '5', 1)
UNKNOWN = trees.INSHOP_PARTITION.replace('query', 'val')
WRONG = [
    ('market1501', 'query/portrait.jpg', None, r'The name of .*portrait\.jpg does not fit'),
    ('market1501', 'query/0001_c7s1_001051_00.jpg', None, 'does not fit'),  # there are six cameras
    ('veri776', 'image_test/0002_c2_000.jpg', None, 'does not fit'),
    ('msmt17', 'list_query.txt', '0000/0000_000_05_0303morning_0022_0.jpg\n', r'line 1: expected "path identity"'),
    ('msmt17', 'list_query.txt', '0000/portrait.jpg 0\n', 'has no camera as its third part'),
    (
        'msmt17',
        'list_query.txt',
        '0000/0000_000_xx_0303morning_0022_0.jpg 0\n',
        "the camera must be a whole number, got 'xx'",
    ),
    ('msmt17', 'list_query.txt', '\n', 'lists nothing'),
    ('cub200', 'image_class_labels.txt', '1 one\n', "the class must be a whole number, got 'one'"),
    (
        'cub200',
        'image_class_labels.txt',
        '1 1\n',
        r'images\.txt has the image 2, which .*image_class_labels\.txt has not',
    ),
    ('sop', 'Ebay_test.txt', 'image_id class_id super_class_id path\n1 2 3\n', r'Ebay_test\.txt, line 2: expected'),
    ('inshop', PARTITION, CUT_OFF, 'announces 5 images, it lists 4'),
    ('inshop', PARTITION, UNKNOWN, r"one of \['train', .* got 'val'"),
]


@pytest.mark.parametrize('name,file,text,message', WRONG)
def test_wrong_contents_are_explained(tmp_path, name, file, text, message):
    root = write(make(name, tmp_path), {file: text or ''})
    with pytest.raises(ValueError, match=message):
        load_data(name, root)
