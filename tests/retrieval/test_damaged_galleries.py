"""What does not fit together in a gallery is refused on opening, by the name of the file; galleries of before open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sfsc_timm.retrieval import Gallery, GalleryInfo

INFO = GalleryInfo('m', 1.0, 4, 'abc')
FIRST, SECOND = '00000.safetensors', '00001.safetensors'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of two shards, of 5 and 3 items."""
    gallery = Gallery.create(tmp_path / 'gallery', INFO)
    values = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    gallery.append([f'{i}.jpg' for i in range(5)], values[:5])
    gallery.append([f'{i}.jpg' for i in range(5, 8)], values[5:])
    return gallery.folder


def manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / 'manifest.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def of_before(folder: Path) -> None:
    """Makes it what the first version wrote: no digests, no ids of the space, no notes of the files."""

    def change(content: dict[str, Any]) -> None:
        content['format'] = 'sfsc-timm gallery 1'
        del content['info']['space_id'], content['info']['weights_digest']
        for shard in content['shards']:
            del shard['sha256']

    manifest(folder, change)


def write(folder: Path, tensor: torch.Tensor, paths: Any, name: str = 'embeddings') -> None:
    """Replaces the second shard."""
    save_file({name: tensor}, folder / SECOND, metadata={'paths': json.dumps(paths)})


THREE = ['a', 'b', 'c']
SHARDS = [
    (torch.ones(3, 4), ['a', 'b', 'c', 'd'], 'it has 4 paths for 3 embeddings'),
    (torch.ones(3, 4), ['a', 'b'], 'it has 2 paths for 3 embeddings'),
    (torch.ones(3, 4), 'abc', 'its paths must be a list of texts'),
    (torch.ones(3, 4), {'a': 1, 'b': 2, 'c': 3}, 'its paths must be a list of texts'),
    (torch.ones(3, 4), [1, 2, 3], 'its paths must be a list of texts'),
    (torch.ones(3, 4), ['a', 'b', 'a'], 'it holds a path twice'),
    (torch.ones(3, 4), ['a', 'b', '0.jpg'], 'one that another shard holds'),
    (torch.ones(1, 4), THREE, r'float32 \(1, 4\), the manifest says float32 \(3, 4\)'),
    (torch.ones(3, 1), THREE, r'float32 \(3, 1\)'),
    (torch.ones(4), THREE, r'float32 \(4,\)'),
    (torch.ones(3, 4, dtype=torch.int32), THREE, r'I32 \(3, 4\)'),
    (torch.ones(3, 4, dtype=torch.float64), THREE, r'F64 \(3, 4\)'),
    (torch.ones(3, 4, dtype=torch.float16), THREE, r'float16 \(3, 4\)'),
    (torch.ones(3, 4, dtype=torch.bool), THREE, r'BOOL \(3, 4\)'),
    (torch.full((3, 4), torch.nan), THREE, '3 of its embeddings are not finite, the first is number 0'),
    (torch.tensor([[1.0] * 4, [1.0] * 4, [torch.inf] * 4]), THREE, '1 of its embeddings are not finite'),
]


@pytest.mark.parametrize('tensor, paths, message', SHARDS)
def test_shards_of_before_are_checked(folder: Path, tensor: torch.Tensor, paths: Any, message: str) -> None:
    of_before(folder)
    assert len(Gallery(folder)) == 8
    write(folder, tensor, paths)
    with pytest.raises(ValueError, match=rf"gallery/{SECOND}' is no shard of this gallery: .*{message}"):
        Gallery(folder)


def test_other_files_in_the_place_of_a_shard(folder: Path) -> None:
    """A digest tells any change; without one, what is no shard at all is still seen."""
    good = (folder / SECOND).read_bytes()
    write(folder, torch.ones(3, 4), THREE)  # fits in every respect
    with pytest.raises(ValueError, match=rf'{SECOND}.*its content is not what was written'):
        Gallery(folder)
    of_before(folder)
    assert Gallery(folder).paths[5:] == ('a', 'b', 'c')
    write(folder, torch.ones(3, 4), THREE, name='other')
    with pytest.raises(ValueError, match=rf"{SECOND}.*it must hold one tensor, 'embeddings', found \['other'\]"):
        Gallery(folder)
    save_file({'embeddings': torch.ones(3, 4)}, folder / SECOND)
    with pytest.raises(ValueError, match=rf'{SECOND}.*it does not say whose embeddings it holds'):
        Gallery(folder)
    for content in (good[:-1], b'', b'version https://git-lfs'):
        (folder / SECOND).write_bytes(content)
        with pytest.raises(ValueError, match=rf'{SECOND}.*it is no whole safetensors file'):
            Gallery(folder)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda m: m.update(count=9), 'count must be 8, the sum of its shards, got 9'),
        (lambda m: m.pop('count'), 'count must be 8'),
        (lambda m: m.update(shards={}), 'shards must be a list'),
        (lambda m: m.update(shards=[1]), 'shards must be a list of objects'),
        (lambda m: m['shards'].append(m['shards'][0]), f'shards must be different files, got .{FIRST} 2 times'),
        (lambda m: m['shards'].reverse(), None),  # another order is a gallery, too
        (lambda m: m['shards'][0].update(count=4), 'count must be 7'),
        (lambda m: m['shards'][0].update(count=5.0), f'count of {FIRST} must be a whole number of at least 1, got 5.0'),
        (lambda m: m['shards'][0].update(count=True), f'count of {FIRST} must be'),
        (lambda m: m['shards'][0].update(count=-5), f'count of {FIRST} must be'),
        (lambda m: m['shards'][0].update(file='../00000.safetensors'), 'file must be a name such as'),
        (lambda m: m['shards'][0].update(file=None), 'file must be a name such as'),
        (lambda m: m['shards'][0].pop('sha256'), f'sha256 of {FIRST} must be 64 hexadecimal digits'),
        (lambda m: m['shards'][0].update(file=SECOND, count=3), 'shards must be different files'),
        (lambda m: m.pop('info'), 'info must be an object'),
        (lambda m: m['info'].pop('width'), 'info must be an object'),
        (lambda m: m['info'].update(more=1), 'info must be an object'),
        (lambda m: m['info'].update(width='1.0'), r"info: width must be in \(0, 1\], got '1.0'"),
        (lambda m: m['info'].update(width=float('nan')), r'info: width must be in \(0, 1\]'),
        (lambda m: m['info'].update(embed_dim=4.5), 'info: embed_dim must be at least 1, got 4.5'),
        (lambda m: m['info'].update(embed_dim=5), r'float32 \(5, 4\), the manifest says float32 \(5, 5\)'),
        (lambda m: m['info'].update(dtype=['float32']), 'info: dtype must be one of'),
        (lambda m: m['info'].update(compatibility_id=7), 'info: compatibility_id must be text'),
    ],
)
def test_manifests(folder: Path, change: Callable[[dict[str, Any]], object], message: str | None) -> None:
    manifest(folder, change)
    if message is None:
        assert Gallery(folder).paths[:3] == ('5.jpg', '6.jpg', '7.jpg')
        return
    with pytest.raises(ValueError, match=message) as caught:
        Gallery(folder)
    assert str(folder) in str(caught.value)


def test_a_deeply_nested_manifest_is_refused(folder: Path) -> None:
    (folder / 'manifest.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match=r"manifest\.json' is not the manifest of a gallery .*; restore it, or build"):
        Gallery(folder)


def test_a_gallery_of_before_gets_digests_with_its_next_change(folder: Path) -> None:
    values = Gallery(folder).embeddings()
    of_before(folder)
    gallery = Gallery.create(folder, INFO)
    assert torch.equal(gallery.embeddings(), values)
    assert gallery.states == (None,) * 8
    gallery.append(['new.jpg'], torch.ones(1, 4))
    content = json.loads((folder / 'manifest.json').read_text())
    assert content['format'] == 'sfsc-timm gallery 2'
    assert all(len(shard['sha256']) == 64 for shard in content['shards'])
    assert len(Gallery(folder)) == 9


def test_which_galleries_are_searched_and_continued() -> None:
    """By the space id; of before there was one, by the id of all weights; a refitted width is another embedder."""
    made = GalleryInfo('m', 0.5, 4, 'all', space_id='space', weights_digest='half')
    before = GalleryInfo('m', 0.5, 4, 'all')
    assert made.shares_space('other widths refitted', 'space')
    assert made.shares_space('all', 'unknown')
    assert not made.shares_space('other', 'other')
    assert not made.shares_space('other', '')
    assert before.shares_space('all', 'space')
    assert not before.shares_space('other', '')
    refitted = GalleryInfo('m', 0.5, 4, 'new', space_id='space', weights_digest='new half')
    elsewhere = GalleryInfo('m', 0.5, 4, 'new', space_id='space', weights_digest='half')
    assert made.embeds_like(elsewhere)  # another width was refitted
    assert not made.embeds_like(refitted)
    assert not made.embeds_like(GalleryInfo('m', 0.5, 4, 'all', space_id='space', weights_digest='new half'))
    assert before.embeds_like(made)
    assert not before.embeds_like(elsewhere)


@pytest.mark.parametrize(
    'notes', ['{}', '[1, 2, 3]', '[[1, 2], null, null]', '[["1", 2, "a"], null, null]', '[null]', '[']
)
def test_notes_of_the_files_are_checked(folder: Path, notes: str) -> None:
    of_before(folder)
    metadata = {'paths': json.dumps(['a', 'b', 'c']), 'files': notes}
    save_file({'embeddings': torch.ones(3, 4)}, folder / SECOND, metadata=metadata)
    with pytest.raises(ValueError, match=rf"{SECOND}' is no shard of this gallery: it"):
        Gallery(folder)
