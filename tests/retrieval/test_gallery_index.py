"""The index that a gallery keeps is of its content, not of its size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfsc_timm.retrieval import FaissIndex, Gallery, GalleryInfo, indexed, search

pytest.importorskip('faiss')

INFO = GalleryInfo('m', 1.0, 4, 'abc')


def values(seed: int) -> Tensor:
    return torch.randn(30, 4, generator=torch.Generator().manual_seed(seed))


def make(folder: Path, seed: int) -> Gallery:
    gallery = Gallery.create(folder, INFO)
    gallery.append([f'{i}.jpg' for i in range(30)], values(seed))
    return gallery


def assert_finds(gallery: Gallery, expected: Tensor, distance: str = 'cosine') -> None:
    """So few items make one list: the index is exact."""
    query = values(9)[:5]
    found = indexed(gallery, distance).search(query, 3)[1]  # type: ignore[arg-type]
    assert torch.equal(found, search(query, expected, 3, distance=distance)[1])  # type: ignore[arg-type]


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_a_rebuilt_gallery_of_the_same_size_gets_its_own_index(tmp_path: Path, distance: str) -> None:
    folder = tmp_path / 'gallery'
    assert_finds(make(folder, 0), values(0), distance)
    for file in (*folder.glob('*.safetensors'), folder / 'manifest.json'):
        file.unlink()
    assert_finds(make(folder, 1), values(1), distance)
    gallery = Gallery(folder)
    gallery.append(['3.jpg'], -gallery.embeddings()[3:4], existing='replace')
    assert_finds(gallery, gallery.embeddings(), distance)
    assert sorted(path.name for path in folder.glob(f'{distance}*')) == [f'{distance}-30.faiss', f'{distance}-30.json']


def test_an_index_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(make(tmp_path, 0))
    monkeypatch.setattr(FaissIndex, '__init__', lambda *_, **__: pytest.fail('built again'))
    assert_finds(Gallery(tmp_path), values(0))


@pytest.mark.parametrize('damage', ['cut', 'changed', 'foreign', 'no note', 'bad note', 'renamed'])
def test_damaged_and_foreign_indexes_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    gallery, other = make(tmp_path / 'gallery', 0), make(tmp_path / 'other', 1)
    for each in (gallery, other):
        indexed(each)
    file, note = gallery.folder / 'cosine-30.faiss', gallery.folder / 'cosine-30.json'
    content = file.read_bytes()
    if damage == 'cut':
        file.write_bytes(content[:-7])
    elif damage == 'changed':
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage in ('foreign', 'renamed'):
        shutil.copy(other.folder / 'cosine-30.faiss', file)
        if damage == 'renamed':
            shutil.copy(other.folder / 'cosine-30.json', note)
    elif damage == 'no note':
        note.unlink()
    else:
        note.write_text(json.dumps([1]))
    with monkeypatch.context() as patch:
        patch.setattr(FaissIndex, 'load', lambda *_: pytest.fail('read'))
        assert_finds(Gallery(gallery.folder), values(0))
    assert_finds(Gallery(gallery.folder), values(0))


def test_files_that_are_no_index_are_refused_by_name(tmp_path: Path) -> None:
    import faiss

    (tmp_path / 'bad.faiss').write_bytes(b'no index at all')
    with pytest.raises(ValueError, match=r"bad\.faiss' is no FAISS index"):
        FaissIndex.load(tmp_path / 'bad.faiss')
    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / 'flat.faiss'))
    with pytest.raises(ValueError, match=r"flat\.faiss' holds a IndexFlatL2"):
        FaissIndex.load(tmp_path / 'flat.faiss')


def test_a_common_offset_changes_no_neighbour(tmp_path: Path) -> None:
    """Far from the origin the lists themselves would be chosen wrong."""
    g = torch.Generator().manual_seed(0)
    gallery, query = torch.randn(4000, 16, generator=g) + 1e4, torch.randn(50, 16, generator=g) + 1e4
    index = FaissIndex(gallery, 'euclidean')
    index.save(tmp_path / 'index.faiss')
    exact = search(query, gallery, 5, distance='euclidean')
    for each in (index, FaissIndex.load(tmp_path / 'index.faiss')):
        scores, items = each.search(query, 5, probes=each.index.nlist)
        assert torch.equal(items, exact[1])
        torch.testing.assert_close(scores, exact[0], rtol=1e-4, atol=1e-4)
        near = each.search(query, 5, probes=20)[1]
        assert (near[:, :1] == exact[1][:, :1]).float().mean() > 0.8
