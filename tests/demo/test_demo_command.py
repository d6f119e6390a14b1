"""`sfsc-timm demo`: galleries that fit and those that do not, the matrix, examples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.checkpoints import paint, save_whole, tiny
from PIL import Image

from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.cli.main import main
from sfsc_timm.data import RetrievalData, Sample
from sfsc_timm.demo import draw_glyphs, glyph_gallery, make_examples, prepared_as, read_matrix
from sfsc_timm.evaluation import CompatibilityMatrix
from sfsc_timm.retrieval import Gallery, GalleryInfo, Preparation

pytest.importorskip('rich')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp('saved')
    return save_whole(tiny(), root / 'one'), save_whole(tiny(1), root / 'other'), paint(root / 'photos')


def gallery_of(checkpoint, folder, files, **changes):
    info = GalleryInfo('x', 1.0, 16, checkpoint.compatibility, space_id=checkpoint.space)
    gallery = Gallery.create(folder, info)
    Preparation(checkpoint.preprocessing, **changes).claim(gallery)
    if files:
        gallery.append([str(file) for file in files], torch.randn(len(files), 16))
    return gallery


def test_a_gallery_of_another_checkpoint_gets_a_sentence(saved, tmp_path, capsys):
    gallery_of(load_checkpoint_model(saved[0]), tmp_path / 'g', saved[2])
    assert main(['demo', str(tmp_path / 'g'), '--checkpoint', str(saved[1])]) == 1
    told = capsys.readouterr().err
    assert 'Distances between different metric spaces mean nothing' in told
    assert 'Traceback' not in told


def test_an_empty_gallery_and_a_wrong_width_get_a_sentence(saved, tmp_path, capsys, monkeypatch):
    checkpoint = load_checkpoint_model(saved[0])
    gallery_of(checkpoint, tmp_path / 'empty', [])
    assert main(['demo', str(tmp_path / 'empty'), '--checkpoint', str(saved[0])]) == 1
    assert 'GALLERY must hold images' in capsys.readouterr().err
    gallery_of(checkpoint, tmp_path / 'g', saved[2])
    monkeypatch.setattr('sfsc_timm.demo.find_runtime', lambda *_: tmp_path)
    arguments = [str(tmp_path / 'g'), '--checkpoint', str(saved[0]), '--cache', str(tmp_path)]
    assert main(['demo', *arguments, '--width', '0.3']) == 1
    assert '--width and --server-widths must be among (0.25, 0.5, 0.75, 1.0), got 0.3' in capsys.readouterr().err


def test_queries_are_prepared_as_the_gallery_was(saved, tmp_path):
    checkpoint = load_checkpoint_model(saved[0])
    other = load_checkpoint_model(saved[0], data_config={'crop_mode': 'squash'})
    gallery = gallery_of(other, tmp_path / 'g', saved[2], flip=True)
    prepared, flip = prepared_as(gallery, checkpoint)
    assert (prepared.preprocessing.crop_mode, flip) == ('squash', True)


def small_glyphs(*_, size, **__):
    """Four characters in two typefaces: comparing the fonts themselves takes seconds."""
    random = np.random.default_rng(0)
    gallery = [Sample(random.integers(0, 256, (size, size), np.uint8), i, c) for i in range(4) for c in range(2)]
    query = [Sample(random.integers(0, 256, (size, size), np.uint8), i, 0) for i in range(4)]
    return RetrievalData('glyphs', train=(), query=query, gallery=gallery)


def test_glyphs_are_drawn_once_and_measured(saved, tmp_path, monkeypatch):
    monkeypatch.setattr('sfsc_timm.demo.glyphs.load_data', small_glyphs)
    monkeypatch.setattr('sfsc_timm.demo.glyphs.glyph_characters', lambda: list('Aß∞x'))
    data = draw_glyphs(tmp_path / 'glyphs', size=32)
    monkeypatch.setattr('sfsc_timm.demo.glyphs.load_data', lambda *_, **__: pytest.fail('drawn again'))
    again = draw_glyphs(tmp_path / 'glyphs', size=32)
    assert [s.image for s in again.gallery] == [s.image for s in data.gallery]
    assert data.gallery[2].image.name == 'latin small letter sharp s, DejaVuSans.png'
    assert all(Image.open(sample.image).size == (32, 32) for sample in (*data.query, *data.gallery))
    checkpoint = load_checkpoint_model(saved[0])
    gallery, matrix = glyph_gallery(checkpoint, data, tmp_path / 'galleries')
    assert gallery.paths == tuple(str(sample.image) for sample in data.gallery)
    assert matrix.widths == checkpoint.widths
    same, _ = glyph_gallery(checkpoint, data, tmp_path / 'galleries')
    assert same.folder == gallery.folder
    assert prepared_as(gallery, checkpoint)[1] is False


def test_examples_are_upright_small_and_without_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, 'where I live'
    Image.new('RGB', (900, 600)).save(tmp_path / 'a.jpg', exif=exif)
    files = [tmp_path / 'a.jpg', tmp_path / 'gone.jpg', *([tmp_path / 'a.jpg'] * 30)]
    made = make_examples(files, tmp_path / 'examples')
    assert [file.name for file in made] == ['a.png']
    assert Image.open(made[0]).size == (341, 512)
    assert b'where I live' not in made[0].read_bytes()


def test_the_matrix_beside_the_checkpoint_and_that_of_another(saved, tmp_path):
    folder = save_whole(tiny(), tmp_path / 'measured')
    checkpoint = load_checkpoint_model(folder)
    assert read_matrix(checkpoint, None) is None
    cells = np.full((4, 4), 50.0)
    for declared, found in ((checkpoint.compatibility, True), ('another', False)):
        matrix = CompatibilityMatrix(checkpoint.widths, cells, cells, {1: cells}, info={'compatibility': declared})
        (folder / 'matrix.json').write_text(json.dumps(matrix.to_dict()))
        assert (read_matrix(checkpoint, None) is not None) is found
    with pytest.raises(ValueError, match='was measured on another checkpoint'):
        read_matrix(checkpoint, folder / 'matrix.json')
    with pytest.raises(FileNotFoundError, match='no file at'):
        read_matrix(checkpoint, tmp_path / 'none.json')
    (tmp_path / 'text.json').write_text('{}')
    with pytest.raises(ValueError, match='is no compatibility matrix'):
        read_matrix(checkpoint, tmp_path / 'text.json')
