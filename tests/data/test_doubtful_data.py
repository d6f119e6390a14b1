"""Data that reads well and would give wrong figures: refused, or warned of, by name."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import trees
from helpers.trees import plant, write

from sfsc_timm.data import DISTRACTOR, RetrievalData, Sample, build_emoji, load_data

HEAD = 'path,identity,camera,split\n'
GOOD = 'a.jpg,ann,1,train\nb.jpg,bob,1,train\nc.jpg,cid,1,query\nd.jpg,cid,2,gallery\ne.jpg,dan,2,gallery\n'


def read(tmp_path: Path, text: str | bytes, **options: Any) -> RetrievalData:
    plant(tmp_path, 'a.jpg')
    file = tmp_path / 'list.csv'
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_data('manifest', file, **options)


def test_a_good_list_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(tmp_path, HEAD + GOOD).gallery) == 2
    assert not caplog.records


@pytest.mark.parametrize(
    'text,message',
    [
        (HEAD + GOOD + 'a.jpg,cid,2,gallery\n', r'a\.jpg.* is both in train and in gallery'),
        (HEAD + GOOD + './a.jpg,cid,2,gallery\n', r'a\.jpg.* is both in train and in gallery'),
        (HEAD + GOOD + 'a.jpg,cid,2,query\n', r'a\.jpg.* is both in train and in query'),
        (HEAD + GOOD + 'd.jpg,dan,2,gallery\n', r'd\.jpg.* has two identities'),
        (HEAD + GOOD + 'd.jpg,-1,2,gallery\n', r'd\.jpg.* has two identities'),
        (HEAD + GOOD + 'b.jpg,ann,1,train\n', r'b\.jpg.* has two identities'),
        (HEAD + GOOD + 'c.jpg,cid,1,query\n', r'c\.jpg.* is twice in query'),
        (HEAD + GOOD + 'e.jpg,dan,2,gallery\n', r'e\.jpg.* is twice in gallery'),
        (HEAD + GOOD + 'c.jpg,cid,3,gallery\n', r'c\.jpg.* is both in query and in gallery'),
        (
            'path,identity,split\na.jpg,ann,train\nc.jpg,cid,query\nc.jpg,cid,gallery\nd.jpg,cid,gallery\n',
            r"c\.jpg.* is both in query and in gallery; .*split 'test'",
        ),
        (HEAD.replace('camera', 'identity') + GOOD, r'list\.csv.* has the column identity twice'),
        (GOOD, r"list\.csv has no column .*its first line must name the columns, got 'a\.jpg,ann,1,train'"),
        (HEAD + GOOD + 'f.jpg,dan,2,gallery,extra\n', r'line 7: expected 4 cells, got 5'),
        (HEAD + GOOD + 'f.jpg,dan\n', r'line 7: expected 4 cells, got 2'),
        (HEAD.encode() + b'a\xff.jpg,ann,1,train\n', r'list\.csv.* is not UTF-8 text; save it as UTF-8'),
        (HEAD + 'a\0.jpg,ann,1,train\n', r'list\.csv.*line 2'),
        (HEAD + 'a' * 200_000 + '.jpg,ann,1,train\n', r'list\.csv.*line 2'),
    ],
)
def test_manifests_are_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_an_image_twice_in_train_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, HEAD + GOOD + 'a.jpg,ann,1,train\n')
    (record,) = caplog.records
    assert 'list: 1 images are more than once in train' in record.getMessage()
    assert 'a.jpg' in record.getMessage()


@pytest.mark.parametrize('options', [{'overlap': True}])
def test_weights_for_use_may_train_on_the_test(options: dict[str, Any]) -> None:
    test = [Sample(Path(f'{i}.jpg'), i % 2) for i in range(4)]
    data = RetrievalData('all', [Sample(s.image, s.identity) for s in test], test, test, False, True, **options)
    assert data.num_classes == 2


def test_one_identity_in_the_test_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    test = [Sample(Path(f'{i}.jpg'), 3) for i in range(4)]
    with caplog.at_level(logging.WARNING):
        RetrievalData('same', [], test, test, False, True)
    assert 'same: query and gallery show one identity alone' in caplog.text
    caplog.clear()
    RetrievalData('found', [], test[:1], [*test[1:], Sample(Path('x.jpg'), DISTRACTOR)], False)
    assert not caplog.records


@pytest.mark.parametrize('where', ['a folder', 'a pipe'])
def test_a_manifest_must_be_a_file(tmp_path: Path, where: str) -> None:
    file = tmp_path / 'list.csv'
    file.mkdir() if where == 'a folder' else os.mkfifo(file)
    with pytest.raises(FileNotFoundError, match=r'list\.csv.* is no file'):
        load_data('manifest', file)


PARTITION = 'Eval/list_eval_partition.txt'
LISTS = [
    ('sop', 'Ebay_train.txt', lambda text: text.split('\n', 1)[1], r'Ebay_train\.txt, line 1: .*"image_id class_id'),
    ('inshop', PARTITION, lambda t: t.split('\n', 1)[1], 'partition.txt, line'),
    ('sop', 'Ebay_test.txt', lambda text: text + text.splitlines()[-1] + '\n', r'568557_0\.JPG|is twice in query'),
    (
        'sop',
        'Ebay_test.txt',
        lambda text: text.replace('11320', '-3'),
        r'class_id must be .* at least 0 and below 2.31, got -3',
    ),
    ('sop', 'Ebay_test.txt', lambda text: text.replace('11320', '9' * 5000), 'class_id must be a whole number'),
    ('sop', 'Ebay_test.txt', lambda text: text.replace('11320', '9' * 30), 'class_id must be a whole number'),
    ('sop', 'Ebay_test.txt', lambda text: text.replace('11320', '1_1'), "class_id must be a whole number.*'1_1'"),
    ('cub200', 'images.txt', lambda text: text + text.splitlines()[0] + '\n', r'images\.txt.* 1 twice'),
    ('cub200', 'image_class_labels.txt', lambda text: text + '1 2\n', r'image_class_labels\.txt.* 1 twice'),
    ('msmt17', 'list_query.txt', lambda text: text + text, 'is twice in query'),
    ('msmt17', 'list_train.txt', lambda text: text.replace('_01_', '_00_'), 'the camera must be .* at least 1'),
    (
        'inshop',
        PARTITION,
        lambda text: text.replace('query', 'gallery').replace('02_3_back', '02_1_front').replace('gallery', 'query', 1),
        r'02_1_front\.jpg.* is both in query and in gallery',
    ),
]


@pytest.mark.parametrize('name,file,change,message', LISTS)
def test_lists_are_refused_by_name(tmp_path: Path, name: str, file: str, change: Any, message: str) -> None:
    root = getattr(trees, name)(tmp_path)
    write(root, {file: change((root / file).read_text())})
    with pytest.raises(ValueError, match=message):
        load_data(name, root)


def test_a_list_that_is_not_text_is_named(tmp_path: Path) -> None:
    root = trees.sop(tmp_path)
    (root / 'Ebay_test.txt').write_bytes(b'\xff\xfe\0')
    with pytest.raises(ValueError, match=r'Ebay_test\.txt.* is not UTF-8 text'):
        load_data('sop', root)


@pytest.mark.parametrize(
    'name,options,message',
    [
        ('folder', {'train_share': 'half'}, "train_share of 'folder' must be a float, got 'half'"),
        ('folder', {'train_share': float('nan')}, r'train_share must be in \[0, 1\), got nan'),
        ('folder', {'camera_pattern': 5}, "camera_pattern of 'folder' must be a text or None, got 5"),
        ('folder', {'seed': 1.5}, "seed of 'folder' must be a whole number, got 1.5"),
        ('emoji', {'validation': 'no'}, "validation of 'emoji' must be True or False, got 'no'"),
        ('glyphs', {'size': '32'}, "size of 'glyphs' must be a whole number, got '32'"),
        ('glyphs', {'size': True}, "size of 'glyphs' must be a whole number, got True"),
        ('glyphs', {'size': 10**6}, 'size must be at most 512, got 1000000'),
        ('glyphs', {'distortion': [1]}, r"distortion of 'glyphs' must be a float, got \[1\]"),
        ('glyphs', {'queries': 0}, 'queries must be at least 1, got 0'),
        ('glyphs', {'train_identities': 2.0}, "train_identities of 'glyphs' must be a whole number or None, got 2.0"),
    ],
)
def test_options_of_the_wrong_type_are_refused_by_name(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(name, None if name == 'glyphs' else plant(tmp_path, 'a/1.jpg', 'b/1.jpg'), **options)


@pytest.mark.parametrize('arguments', [{'identity': 'x'}, {'identity': 1.0}, {'identity': 1, 'camera': None}])
def test_labels_must_be_whole_numbers(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'must be a whole number, got'):
        Sample(np.zeros((2, 2), np.uint8), **arguments)
    assert Sample(np.zeros((2, 2), np.uint8), np.int64(1), np.int32(2)).camera == 2


def test_long_numbers_in_file_names_are_names(tmp_path: Path) -> None:
    """A serial number of twenty digits does not fit into the integers of tensors."""
    plant(
        tmp_path,
        *(f'{split}/{name}/{"9" * 20}{i}_.jpg' for split, name in (('train', 'a'), ('test', 'b')) for i in '12'),
    )
    data = load_data('folder', tmp_path, camera_pattern=r'^(\d+)_')
    assert [s.camera for s in data.query] == [0, 1]


@pytest.mark.parametrize('size', [8, 100_000, 64.0, True])
def test_emoji_of_no_size_are_not_built(tmp_path: Path, size: Any) -> None:
    with pytest.raises(ValueError, match=r'size must be .*at (least 16|most 1024), got'):
        build_emoji(tmp_path / 'emoji', size=size)


def test_a_damaged_note_of_a_build_is_named(tmp_path: Path) -> None:
    (tmp_path / 'build.json').write_text('{"size": ')
    with pytest.raises(ValueError, match=r'build\.json is damaged .*build in a new folder'):
        build_emoji(tmp_path)


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda text: text.splitlines()[0] + '\nA,1\n', r'classes\.csv, line 2: the image path must not be empty'),
        (lambda text: text.replace('Class ID (int)', 'Class'), r"classes\.csv: expected a column 'Class ID"),
        (lambda text: text.splitlines()[0] + '\nA,one,2,x,/a.jpg,b\n', r'classes\.csv, line 2: Class ID must be'),
    ],
)
def test_a_damaged_catalogue_is_named(tmp_path: Path, change: Any, message: str) -> None:
    head = 'Class Name (str),Class ID (int),Coarse,Coarse ID,Iconic Image Path (str),Description\n'
    images = [f'train/{label}/{i}.jpg' for label in range(4) for i in range(2)]
    lines = ''.join(f'{image}, {image[6]}, 0\n' for image in images)
    write(
        tmp_path,
        {'train.txt': lines, 'val.txt': lines.replace('train', 'val'), 'test.txt': lines.replace('train', 'test')},
    )
    plant(tmp_path, *images, *(f'{split}/{image[6:]}' for image in images for split in ('val', 'test')))
    write(tmp_path, {'classes.csv': change(head + 'A,1,2,x,/train/1/0.jpg,b\n')})
    with pytest.raises(ValueError, match=message):
        load_data('grocery', tmp_path, gallery='catalogue')
