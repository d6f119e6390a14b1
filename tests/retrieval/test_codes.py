"""Galleries of int8 codes and of bits: what they hold, how exactly they are searched, what can be done with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfsc_timm.retrieval import (
    Gallery,
    GalleryInfo,
    IncompatibleGalleryError,
    Scales,
    Shortlist,
    convert,
    export,
    merge,
    recall_of,
    scans,
    search,
)
from sfsc_timm.retrieval import bits as bits_module

SIZE = 20  # neither a multiple of 8 nor of 64


def info(dtype: str) -> GalleryInfo:
    return GalleryInfo('m', 1.0, SIZE, 'abc', dtype)


def some(count: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, SIZE, generator=torch.Generator().manual_seed(9))
    return 3 * centres[torch.randint(40, (count,), generator=random)] + torch.randn(count, SIZE, generator=random)


def names(count: int, first: int = 0) -> list[str]:
    return [f'{i}.jpg' for i in range(first, first + count)]


@pytest.fixture(params=['int8', 'binary'])
def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Gallery:
    """Two shards, of 300 and 200 items."""
    made = Gallery.create(tmp_path / 'gallery', info(request.param))
    values = some(500)
    made.append(names(300), values[:300])
    made.append(names(200, 300), values[300:])
    return made


def test_embeddings_come_back_to_half_a_step(gallery: Gallery) -> None:
    assert gallery.scales is not None
    again = Gallery(gallery.folder)
    assert again.scales == gallery.scales
    values, step = again.embeddings(), gallery.scales.tensor
    assert values.dtype == torch.float32
    inside = some(500).abs() <= 127 * step
    assert inside.float().mean() > 0.999
    assert ((values - some(500)).abs() <= 0.501 * step)[inside].all()
    # An item is a byte a number, and in a binary gallery a bit a number more.
    files = sum((gallery.folder / shard).stat().st_size for shard in ('00000.safetensors', '00001.safetensors'))
    listed = sum(len(json.dumps(names(500))) for _ in range(1)) + 6 * 500
    assert 500 * SIZE < files < 500 * SIZE * (1.2 if gallery.info.dtype == 'binary' else 1) + listed + 2000


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_codes_are_searched_as_what_they_stand_for(tmp_path: Path, distance: str) -> None:
    made = Gallery.create(tmp_path, info('int8'))
    made.append(names(500), some(500))
    query = some(7, seed=1)
    wanted, items = search(query, made.embeddings(), 10, distance=distance)  # type: ignore[arg-type]
    scores, found = made.scan()(query, 10, distance)  # type: ignore[arg-type]
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
    assert (found == items).float().mean() > 0.97  # scores that are equal but for rounding may change places
    assert (
        made.search(query, 500, distance=distance)[0][-1][1]
        == pytest.approx(  # type: ignore[arg-type]
            float(search(query[:1], made.embeddings(), 500, distance=distance)[0][0, -1]),
            abs=1e-4,  # type: ignore[arg-type]
        )
    )


def test_tiles_meet_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Gallery.create(tmp_path, info('int8'))
    made.append(names(500), some(500))
    whole = made.search(some(3, seed=1), 20)
    monkeypatch.setattr('sfsc_timm.retrieval.codes._TILE', 192)
    monkeypatch.setattr('sfsc_timm.retrieval.codes._BLOCK', 50)
    parts = made.search(some(3, seed=1), 20)
    assert [[path for path, _ in row] for row in parts] == [[path for path, _ in row] for row in whole]


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_a_binary_gallery_rescores_the_nearest_by_bits(tmp_path: Path, distance: str) -> None:
    made = Gallery.create(tmp_path, info('binary'))
    made.append(names(300), some(300))
    made.append(names(200, 300), some(500)[300:])
    query = some(7, seed=1)
    signs = lambda x: (x > 0).float()  # noqa: E731
    differing = torch.cdist(signs(query), signs(made.embeddings()), p=1)
    exact = search(query, made.embeddings(), 500, distance=distance)  # type: ignore[arg-type]
    for row, found in enumerate(made.search(query, 5, distance=distance, shortlist=Shortlist(60))):  # type: ignore[arg-type]
        listed = set(differing[row].argsort(stable=True)[:60].tolist())
        wanted = [int(item) for item in exact[1][row] if int(item) in listed][:5]
        assert [path for path, _ in found] == [f'{item}.jpg' for item in wanted]
        score_of = dict(zip(exact[1][row].tolist(), exact[0][row].tolist(), strict=True))
        assert [score for _, score in found] == pytest.approx([score_of[item] for item in wanted], abs=1e-4)
    every = made.search(query, 5, distance=distance, shortlist=Shortlist(500))  # type: ignore[arg-type]
    assert [[path for path, _ in row] for row in every] == [[f'{i}.jpg' for i in row[:5]] for row in exact[1].tolist()]
    with pytest.raises(ValueError, match="a binary gallery has a shortlist by 'binary'"):
        made.search(query, 5, shortlist=Shortlist(60, 8))


def test_more_items_have_more_rescored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [scans.binary_shortlist(count) for count in (10, 100_000, 150_000, 1_000_000)] == [100, 100, 150, 1000]
    made = Gallery.create(tmp_path, info('binary'))
    made.append(names(500), some(500))
    monkeypatch.setattr(scans, 'binary_shortlist', lambda count: count // 5)
    query = some(7, seed=1)
    assert made.search(query, 5) == made.search(query, 5, shortlist=Shortlist(100))


def test_opposite_items_of_256_numbers_are_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 bits that differ do not fit a byte."""
    values = torch.cat([-torch.ones(1, 256), torch.ones(1, 256)])
    for count in (bits_module._count, bits_module._by_table):
        monkeypatch.setattr(bits_module, '_count', count)
        scan = bits_module.HammingScan.of_embeddings(values)
        assert scan.shortlist(torch.ones(1, 256), 1).tolist() == [[1]]
        assert scan.bytes == 64


def test_the_table_counts_as_numpy_does() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 63, (3, 5), dtype=np.uint64)
    wanted = [[bin(word).count('1') for word in row] for row in words.tolist()]
    assert bits_module._by_table(words).tolist() == wanted
    assert bits_module._count(words).tolist() == wanted


def test_a_shortlist_by_first_numbers_or_bits(tmp_path: Path) -> None:
    query = some(20, seed=1)
    for dtype in ('float32', 'float16', 'int8'):
        made = Gallery.create(tmp_path / dtype, info(dtype))
        made.append(names(500), some(500))
        exact = made.search(query, 10)
        values = made.embeddings().float()
        short = search(query[:, :8], values[:, :8], 30)[1]
        for row, found in enumerate(made.search(query, 10, shortlist=Shortlist(30, 8))):
            scores = normalize(values[short[row]], dim=1) @ normalize(query[row], dim=0)
            best = short[row][scores.argsort(descending=True)[:10]].tolist()
            assert {path for path, _ in found} == {f'{item}.jpg' for item in best}
            assert [score for _, score in found] == pytest.approx(
                scores.sort(descending=True).values[:10].tolist(), abs=1e-5
            )
        for by in (8, 'binary'):
            recalls = [recall_of(made.search(query, 10, shortlist=Shortlist(n, by)), exact) for n in (10, 60, 500)]  # type: ignore[arg-type]
            assert recalls[0] < recalls[1] <= recalls[2] == 1
        with pytest.raises(ValueError, match='shortlist must be by at most 20 numbers'):
            made.search(query, 10, shortlist=Shortlist(30, 21))
    with pytest.raises(ValueError, match='at least 1'):
        Shortlist(0)


def test_scales_of_few_images_leave_room() -> None:
    values = some(5000)
    for count in (1, 8, 4096):
        scales = Scales.fit(values[:count])
        codes, beyond = scales.encode(values[:count])
        assert beyond == 0
        assert codes.dtype == torch.int8
        assert int(codes.abs().max()) <= 127
        _, beyond = scales.encode(values)
        assert beyond < (0.03 if count == 1 else 0.002) * values.numel()
    assert torch.equal(Scales.fit(torch.zeros(2, 3)).decode(torch.zeros(2, 3, dtype=torch.int8)), torch.zeros(2, 3))


def test_numbers_beyond_the_range_become_its_end_and_are_told(gallery: Gallery) -> None:
    assert gallery.scales is not None
    with pytest.warns(UserWarning, match='lie beyond the range of'):
        gallery.append(['far.jpg'], 1e4 * some(1))
    end = 127 * gallery.scales.tensor
    torch.testing.assert_close(gallery.embeddings()[-1].abs(), end)


def test_items_go_change_and_stay_the_same_codes(gallery: Gallery) -> None:
    before, scales = gallery.embeddings(), gallery.scales
    gallery.remove(['0.jpg', '450.jpg'])
    again = Gallery(gallery.folder)
    kept = [i for i in range(500) if i not in {0, 450}]
    assert torch.equal(again.embeddings(), before[kept])
    again.append(['1.jpg'], some(1, seed=5), existing='replace')
    again.append(['1.jpg', 'new.jpg'], some(2, seed=6), existing='skip')
    assert len(again) == 499
    row = again.paths.index('1.jpg')
    torch.testing.assert_close(again.embeddings()[row], some(1, seed=5)[0], atol=0.1, rtol=0.1)
    query = some(3, seed=1)
    assert Gallery(gallery.folder).search(query, 5) == again.search(query, 5)
    again.remove(again.paths)
    assert Gallery(gallery.folder).scales == scales  # it stays the same gallery


def test_an_interrupted_first_write_leaves_no_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Gallery.create(tmp_path, info('int8'))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('sfsc_timm.retrieval.gallery.write_manifest', fail)
        with pytest.raises(KeyboardInterrupt):
            made.append(['huge.jpg'], 1000 * some(1))
    assert Gallery(tmp_path).scales is None
    made.append(names(300), some(300))
    assert made.scales == Scales.fit(some(300))


def test_merging_and_copying(gallery: Gallery, tmp_path: Path) -> None:
    floats = Gallery.create(tmp_path / 'floats', info('float32'))
    floats.append(names(300), some(500)[:300])
    floats.append(names(200, 300), some(500)[300:])
    made = convert(floats, tmp_path / 'made', dtype=gallery.info.dtype)
    assert isinstance(made, Gallery)
    assert torch.equal(made.embeddings(), gallery.embeddings())
    other = Gallery.create(tmp_path / 'other', info(gallery.info.dtype))
    other.append(['other.jpg'], some(1, seed=3))
    before = gallery.embeddings()
    merge(gallery, other)
    assert torch.equal(gallery.embeddings()[:500], before)
    torch.testing.assert_close(gallery.embeddings()[500], some(1, seed=3)[0], atol=0.15, rtol=0.1)
    with pytest.raises(IncompatibleGalleryError):
        merge(gallery, floats, 'skip')
    with pytest.raises(ValueError, match='must hold float32 or float16 to become int8'):
        convert(gallery, tmp_path / 'again', dtype='int8')
    with pytest.raises(ValueError, match='a Lance gallery holds float32 or float16, got'):
        convert(gallery, tmp_path / 'lance')
    export(gallery, tmp_path / 'items.npy', 'npy')
    written = np.load(tmp_path / 'items.npy')
    assert written.dtype == np.float32
    assert torch.equal(torch.from_numpy(written), gallery.embeddings())


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda c: c['scales']['values'].__setitem__(0, 0.5), 'not what was written, by their sha256'),
        (lambda c: c['scales']['values'].pop(), 'they must be 20 numbers, got 19'),
        (lambda c: c['scales']['values'].__setitem__(0, -1.0), 'finite numbers above 0'),
        (lambda c: c.__setitem__('scales', None), 'they must be a list of numbers'),
        (lambda c: c.__setitem__('format', 'sfsc-timm gallery 2'), 'dtype must be int8 or binary in format 3'),
    ],
)
def test_damaged_scales_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    made = Gallery.create(tmp_path, info('int8'))
    made.append(names(5), some(5))
    file = tmp_path / 'manifest.json'
    content = json.loads(file.read_text())
    change(content)  # type: ignore[operator]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason) as caught:
        Gallery(tmp_path)
    assert str(file) in str(caught.value)


def test_galleries_of_floats_are_written_as_before(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path, info('float32'))
    made.append(names(5), some(5))
    content = json.loads((tmp_path / 'manifest.json').read_text())
    assert content['format'] == 'sfsc-timm gallery 2'
    assert 'scales' not in content
    assert b'identities' not in (tmp_path / '00000.safetensors').read_bytes()


def test_identities_are_kept_of_the_items(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / 'a', info('float32'))
    made.append(names(3), some(3))
    assert made.columns == ()
    made.append(['x', 'y'], some(2), labels={'identity': ['ann', None], 'camera': ['1', '2']})
    made.label(['0.jpg'], {'identity': ['bob']})
    made.append(['x'], some(1), existing='replace')
    made.remove(['1.jpg'])
    made = Gallery(tmp_path / 'a')
    assert made.columns == ('identity',)
    assert dict(zip(made.paths, made.identities, strict=True)) == {'0.jpg': 'bob', '2.jpg': None, 'x': 'ann', 'y': None}
    other = Gallery.create(tmp_path / 'b', info('float32'))
    merge(other, made)
    assert dict(zip(other.paths, other.identities, strict=True))['x'] == 'ann'
