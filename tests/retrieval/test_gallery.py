"""Galleries on disk: appending, resuming, interruptions, compatibility; the FAISS index."""

from __future__ import annotations

import json
import os

import pytest
import torch

from sfsc_timm.retrieval import FaissIndex, Gallery, GalleryInfo, IncompatibleGalleryError, search
from sfsc_timm.retrieval import gallery as gallery_module
from sfsc_timm.retrieval import shards as shards_module

INFO = GalleryInfo(model='sfsc_resnet18', width=1.0, embed_dim=4, compatibility_id='abc')


def batch(begin, end, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [f'images/{i}.jpg' for i in range(begin, end)], torch.randn(100, 4, generator=g)[begin:end]


@pytest.fixture
def gallery(tmp_path):
    gallery = Gallery.create(tmp_path / 'new' / 'gallery', INFO)
    gallery.append(*batch(0, 5))
    return gallery


def assert_holds(gallery, end):
    paths, embeddings = batch(0, end)
    assert len(gallery) == end
    assert list(gallery.paths) == paths
    assert torch.equal(gallery.embeddings(), embeddings)


def test_appended_items_are_read_back(gallery):
    gallery.append(*batch(5, 6))
    gallery.append(*batch(6, 20))
    assert_holds(gallery, 20)
    again = Gallery(gallery.folder)
    assert_holds(again, 20)
    assert again.info == INFO
    manifest = json.loads((gallery.folder / 'manifest.json').read_text())
    assert manifest['count'] == 20
    assert manifest['info']['width'] == 1.0
    assert manifest['info']['compatibility_id'] == 'abc'


def test_an_empty_gallery_is_readable(tmp_path):
    empty = Gallery.create(tmp_path, INFO)
    assert len(empty) == 0
    assert empty.paths == ()
    assert empty.embeddings().shape == (0, 4)


def test_resuming_embeds_only_what_is_missing(gallery):
    resumed = Gallery.create(gallery.folder, GalleryInfo('moved/sfsc_resnet18', 1.0, 4, 'abc'))
    paths, embeddings = batch(0, 9)
    left = resumed.missing(paths)
    assert left == paths[5:]
    resumed.append(left, embeddings[5:])
    assert_holds(resumed, 9)
    assert resumed.missing(paths) == []


@pytest.mark.parametrize('failing', ['save_file', 'write_manifest', 'first replace', 'second replace'])
def test_an_interruption_loses_nothing(gallery, monkeypatch, failing):
    replace, calls = os.replace, []

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    def fail_at(*args):
        calls.append(args)
        if len(calls) == ['first replace', 'second replace'].index(failing) + 1:
            raise KeyboardInterrupt
        replace(*args)

    with monkeypatch.context() as patch:
        if 'replace' in failing:
            patch.setattr(os, 'replace', fail_at)
        else:
            patch.setattr(shards_module if failing == 'save_file' else gallery_module, failing, fail)
        with pytest.raises(KeyboardInterrupt):
            gallery.append(*batch(5, 9))
    for state in (gallery, Gallery(gallery.folder)):
        assert_holds(state, 5)
    gallery.append(*batch(5, 12))
    assert_holds(Gallery(gallery.folder), 12)
    assert {path.name for path in gallery.folder.iterdir()} <= {
        'manifest.json',
        '00000.safetensors',
        '00001.safetensors',
    }


def test_half_precision_takes_half_the_room(tmp_path):
    gallery = Gallery.create(tmp_path, GalleryInfo('m', 0.5, 4, 'abc', 'float16'))
    paths, embeddings = batch(0, 8)
    gallery.append(paths, embeddings)
    assert gallery.embeddings().dtype == torch.float16
    assert torch.equal(gallery.embeddings(), embeddings.half())
    with pytest.raises(ValueError, match='too large for float16'):
        gallery.append(['big.jpg'], torch.full((1, 4), 1e6))
    assert len(gallery) == 8


def test_queries_of_another_metric_space_are_refused_unless_forced(gallery):
    gallery.check('abc', 4)
    with pytest.raises(IncompatibleGalleryError, match=r'sfsc_resnet18 at width 1 .*abc.*queries come from .* other'):
        gallery.check('other', 4)
    gallery.check('other', 4, force=True)
    with pytest.raises(IncompatibleGalleryError, match='query embeddings have 8 numbers'):
        gallery.check('abc', 8, force=True)


@pytest.mark.parametrize('change', [{'width': 0.5}, {'compatibility_id': 'x'}, {'embed_dim': 5}, {'dtype': 'float16'}])
def test_a_gallery_is_not_mixed(gallery, change):
    with pytest.raises(IncompatibleGalleryError, match='already holds a gallery embedded by'):
        Gallery.create(gallery.folder, GalleryInfo(**{**INFO.__dict__, **change}))


@pytest.mark.parametrize(
    'paths, embeddings, match',
    [
        (['a', 'a'], torch.zeros(2, 4), 'paths holds an item twice'),
        (['images/3.jpg'], torch.zeros(1, 4), 'in the gallery already'),
        (['a'], torch.zeros(1, 5), 'embeddings have 5 numbers, the gallery holds 4'),
        (['a', 'b'], torch.zeros(1, 4), 'gallery embeddings have 1 rows but there are 2'),
        (['a'], torch.full((1, 4), torch.nan), 'contain NaN'),
    ],
)
def test_bad_items_are_refused(gallery, paths, embeddings, match):
    with pytest.raises(ValueError, match=match):
        gallery.append(paths, embeddings)
    assert_holds(Gallery(gallery.folder), 5)


def test_bad_folders_are_explained(gallery, tmp_path):
    with pytest.raises(FileNotFoundError, match='no gallery in'):
        Gallery(tmp_path / 'nothing')
    manifest = gallery.folder / 'manifest.json'
    good = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**good, 'format': 'sfsc-timm gallery 9'}))
    with pytest.raises(ValueError, match="has format 'sfsc-timm gallery 9', this version reads"):
        Gallery(gallery.folder)
    for bad in ('[', '[]', '{}'):
        manifest.write_text(bad)
        with pytest.raises(ValueError, match='is not the manifest of a gallery'):
            Gallery(gallery.folder)
    manifest.write_text(json.dumps(good))
    (gallery.folder / '00000.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'lists 00000.safetensors \(5 items\), which is missing'):
        Gallery(gallery.folder)
    with pytest.raises(ValueError, match=r"dtype must be one of .* got 'int4'"):
        GalleryInfo('m', 1.0, 4, 'x', 'int4')
    with pytest.raises(ValueError, match='embed_dim must be at least 1'):
        GalleryInfo('m', 1.0, 0, 'x')


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_faiss_visiting_every_list_equals_exact_search(distance, tmp_path):
    pytest.importorskip('faiss')
    g = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(10, 8, generator=g), torch.randn(2000, 8, generator=g)
    index = FaissIndex(gallery, distance)
    index.save(tmp_path / 'index.faiss')
    exact = search(query, gallery, 12, distance=distance)
    for each in (index, FaissIndex.load(tmp_path / 'index.faiss')):
        assert each.index.nlist == 50
        scores, items = each.search(query, 12, probes=50)
        assert torch.equal(items, exact[1])
        torch.testing.assert_close(scores, exact[0], rtol=0, atol=1e-5)
    few = index.search(query, 2000, probes=1)
    assert (few[1] == -1).any()
    assert (few[0][few[1] == -1] == -torch.inf).all()
    assert list(tmp_path.iterdir()) == [tmp_path / 'index.faiss']


def test_faiss_refuses_bad_input(tmp_path, monkeypatch):
    pytest.importorskip('faiss')
    index = FaissIndex(torch.randn(10, 4))
    with pytest.raises(ValueError, match='query embeddings have 3 numbers, the index holds 4'):
        index.search(torch.randn(2, 3), 1)
    with pytest.raises(ValueError, match='k and probes must be at least 1'):
        index.search(torch.randn(2, 4), 0)
    with pytest.raises(FileNotFoundError, match='no FAISS index at'):
        FaissIndex.load(tmp_path / 'none.faiss')
    monkeypatch.setitem(__import__('sys').modules, 'faiss', None)
    with pytest.raises(ImportError, match=r'sfsc-timm\[faiss\]'):
        FaissIndex(torch.randn(10, 4))
