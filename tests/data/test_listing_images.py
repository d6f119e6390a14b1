"""Which files of a folder are taken for images, and what is said of the others."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.trees import plant
from PIL import Image, features

from sfsc_timm.data import load_data, load_image
from sfsc_timm.data._files import hash_order, list_images, require_images


def test_takes_every_common_type_that_pillow_reads(tmp_path: Path) -> None:
    names = ['a.JPG', 'b.jpeg', 'c.png', 'd.tiff', 'e.webp', 'f.bmp', 'g.gif', 'h.jfif', 'i.pgm', 'j.tga']
    names += ['k.avif'] * features.check('avif') + ['l.jp2'] * features.check('jpg_2000')
    plant(tmp_path, *names)
    assert [file.name for file in require_images(tmp_path, '')] == sorted(names)


def test_avif_is_decoded(tmp_path: Path) -> None:
    if not features.check('avif'):
        pytest.skip('this Pillow reads no AVIF')
    Image.new('RGB', (16, 16), (200, 30, 30)).save(tmp_path / 'a.avif')
    (file,) = require_images(tmp_path, '')
    assert np.abs(np.asarray(load_image(file)).astype(int) - (200, 30, 30)).max() < 8


def test_says_how_many_files_of_other_types_were_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, 'a.jpg', 'b.heic', 'sub/c.HEIC', 'notes.txt', 'README', '.hidden', '.cache/x.bin', 'Thumbs.db')
    with caplog.at_level(logging.WARNING):
        files = require_images(tmp_path, '', recursive=True)
    if len(files) == 1:  # without the package for HEIC
        assert f'{str(tmp_path)!r}: 4 files are no images that Pillow reads here and were left: 2 .heic,' in caplog.text
        assert 'pip install pillow-heif' in caplog.text
    else:
        assert '2 files are no images' in caplog.text
    assert '1 .txt' in caplog.text
    assert '1 without a suffix' in caplog.text
    assert len(caplog.records) == 1


def test_says_nothing_where_nothing_was_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    require_images(plant(tmp_path, 'a.jpg', 'desktop.ini', '.DS_Store'), '')
    assert not caplog.records


def test_a_folder_of_other_types_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'No images in: .*2 files are no images.*1 \.pdf, 1 \.txt'):
        require_images(plant(tmp_path, 'a.pdf', 'b.txt'), 'tree')


def test_the_folder_reader_counts_once_for_all_identities(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, *(f'{name}/{i}.jpg' for name in 'abcd' for i in '12'), 'a/x.mov', 'b/y.mov', 'c/z.txt')
    load_data('folder', tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f'{str(tmp_path)!r}: 3 files are no images that Pillow reads here and were left: 2 .mov, 1 .txt.'
    ]


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems refuse such names')
def test_names_that_are_not_utf_8_are_read(tmp_path: Path) -> None:
    for name in (b'caf\xe9', b'b', b'c', b'd'):
        folder = tmp_path / os.fsdecode(name)
        plant(folder, '1.jpg', '2.jpg')
    assert len(load_data('folder', tmp_path).train) == 4
    assert len(list_images(tmp_path, recursive=True)) == 8
    assert len(hash_order([os.fsdecode(b'caf\xe9'), 'b'])) == 2


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, 'a.jpg', 'closed/b.jpg', 'open/c.jpg')
    scandir = os.scandir

    def closed(path: str) -> object:
        if Path(path).name == 'closed':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    files = list_images(tmp_path, recursive=True)
    assert [file.name for file in files] == ['a.jpg', 'c.jpg']
    assert 'closed' in caplog.text
    assert 'was left' in caplog.text
