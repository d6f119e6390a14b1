"""The Lance store: what the safetensors gallery does, and columns, roots, conditions, indexes, versions."""

from __future__ import annotations

import os
import random
import resource
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from sfsc_timm.data import Preprocessing
from sfsc_timm.retrieval import (
    FileState,
    Gallery,
    GalleryInfo,
    IncompatibleGalleryError,
    LanceGallery,
    Preparation,
    build_index,
    convert,
    find_changes,
    merge,
    open_gallery,
    state_since,
    times_of,
)
from sfsc_timm.retrieval.lance.roots import to_key

pytest.importorskip('lancedb')
from helpers.lance_writer import lance_writer

pytestmark = pytest.mark.lance

INFO = GalleryInfo('m', 1.0, 8, 'abc', space_id='s', weights_digest='w')
PREPARATION = Preparation(Preprocessing((3, 32, 32), (0.5,) * 3, (0.5,) * 3))


def embeddings(count: int, seed: int = 0, size: int = 8) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def filled(folder: Path | str, count: int = 20) -> LanceGallery:
    gallery = LanceGallery.create(folder, INFO, root='/data', columns=['camera', 'identity'])
    states = [FileState(i, 10**18 + i, f'{i:064x}') for i in range(count)]
    labels = {'camera': [str(i % 4) for i in range(count)], 'identity': [None, "o'b"] * (count // 2)}
    gallery.append([f'/data/a/{i}.jpg' for i in range(count)], embeddings(count), states, labels=labels)
    return gallery


def values(gallery: LanceGallery | Gallery) -> dict[str, list[float]]:
    return {
        path: row for part in gallery.records() for path, row in zip(part.paths, part.embeddings.tolist(), strict=True)
    }


def test_what_is_kept(tmp_path: Path) -> None:
    made = filled(tmp_path / 'g')
    gallery = open_gallery(tmp_path / 'g')
    assert isinstance(gallery, LanceGallery)
    assert (gallery.info, gallery.columns, gallery.root) == (INFO, ('camera', 'identity'), '/data')
    part = next(gallery.records())
    assert part.paths[:2] == ('/data/a/0.jpg', '/data/a/1.jpg')
    assert torch.equal(part.embeddings, embeddings(20))
    assert part.states[3] == FileState(3, 10**18 + 3, f'{3:064x}')
    assert part.labels == {'camera': list('0123' * 5), 'identity': [None, "o'b"] * 10}
    assert set(part.widths) == {1.0}
    assert gallery.missing(['/data/new', '/data/a/3.jpg', '/else']) == ['/data/new', '/else']
    with pytest.raises(ValueError, match='in the gallery already'):
        gallery.append(['/data/a/3.jpg'], embeddings(1))
    with pytest.raises(ValueError, match='an item twice'):
        gallery.append(['/data/x', '/data/x'], embeddings(2), existing='skip')
    gallery.append(['/data/a/3.jpg', '/else/x.jpg'], embeddings(2, 1), existing='skip')
    assert values(gallery)['/data/a/3.jpg'] == embeddings(20)[3].tolist()
    gallery.append(['/data/a/3.jpg'], embeddings(1, 2), existing='replace')
    made.remove(["/data/it's not there", '/else/x.jpg'])  # begins from what the other wrote
    assert len(made) == 20
    assert values(made)['/data/a/3.jpg'] == embeddings(1, 2)[0].tolist()


def test_searches_equal_those_of_the_files(tmp_path: Path) -> None:
    lance, files = filled(tmp_path / 'g'), Gallery.create(tmp_path / 'f', INFO)
    files.append([f'/data/a/{i}.jpg' for i in range(20)], embeddings(20))
    query = embeddings(3, 5)
    for distance in ('cosine', 'euclidean'):
        one, two = (gallery.search(query, 7, distance=distance) for gallery in (lance, files))
        assert [[path for path, _ in row] for row in one] == [[path for path, _ in row] for row in two]
        for row, other in zip(one, two, strict=True):
            assert [score for _, score in row] == pytest.approx([score for _, score in other], abs=1e-6)
    found = lance.search(query, 99, where="camera = 3 and identity = \"o'b\" and path like 'a/1%'")
    assert [{path for path, _ in row} for row in found] == [{'/data/a/11.jpg', '/data/a/15.jpg', '/data/a/19.jpg'}] * 3
    with pytest.raises(ValueError, match='--where needs a gallery with columns'):
        files.search(query, 3, where='camera = 3')
    with pytest.raises(ValueError, match='one of path, width'):
        lance.search(query, 3, where='embedding_8 = 3')


def test_a_root_moves(tmp_path: Path) -> None:
    gallery = filled(tmp_path / 'g')
    gallery.append(['/elsewhere/b.jpg'], embeddings(1, 3))
    assert LanceGallery(tmp_path / 'g', '/mnt/x').paths[-1] == '/elsewhere/b.jpg'.replace(
        '/elsewhere', '/mnt/elsewhere'
    )
    gallery.move('s3://bucket/photos')
    assert LanceGallery(tmp_path / 'g').paths[0] == 's3://bucket/photos/a/0.jpg'
    assert len(gallery) == 21


def test_keys_are_relative_paths() -> None:
    for rest in ('a.jpg', 'a/b.jpg', '../b', 'a/../b', './a', 'a//b', '.hidden', '..name', 'a.', 'a/..', '', 'a\\b'):
        assert to_key(f'/data/x/{rest}', '/data/x') == os.path.relpath(f'/data/x/{rest}', '/data/x')
    assert to_key('/data/xy/a', '/data/x') == '../xy/a'


def test_other_embedders_and_preparations_are_refused(tmp_path: Path) -> None:
    gallery = filled(tmp_path / 'g')
    for info in (GalleryInfo('m', 0.5, 8, 'abc', space_id='s'), GalleryInfo('m', 1.0, 8, 'x', space_id='other')):
        with pytest.raises(IncompatibleGalleryError, match='already holds a gallery embedded by'):
            LanceGallery.create(tmp_path / 'g', info)
    with pytest.raises(IncompatibleGalleryError, match='Distances between different metric spaces mean nothing'):
        gallery.check('x', 8, space_id='other')
    gallery.check('x', 8, space_id='s')
    with pytest.raises(IncompatibleGalleryError, match=r'holds images, but no preprocessing\.json'):
        PREPARATION.claim(gallery)
    empty = LanceGallery.create(tmp_path / 'e', INFO)
    PREPARATION.claim(empty)
    assert Preparation.of(LanceGallery(tmp_path / 'e')) == PREPARATION
    with pytest.raises(IncompatibleGalleryError, match=r'flip=False \(now True\)'):
        Preparation(PREPARATION.preprocessing, flip=True).claim(empty)
    with pytest.raises(FileNotFoundError, match='no gallery in'):
        LanceGallery(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='rename it'):
        LanceGallery.create(tmp_path / 'n', INFO, columns=['file_size'])


def test_changed_and_missing_files(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in 'abc']
    for path in paths:
        Path(path).write_text(path)
    times = times_of(paths)
    gallery = LanceGallery.create(tmp_path / 'g', INFO, root=str(tmp_path))
    gallery.append(paths, embeddings(3), [state_since(path, times[path]) for path in paths])
    Path(paths[0]).write_text('something else')
    Path(paths[2]).unlink()
    for verify in (False, True):
        changes = find_changes(gallery, verify)
        assert (changes.changed, changes.gone, changes.unknown) == ((paths[0],), (paths[2],), ())


def test_there_and_back_and_two_into_one(tmp_path: Path) -> None:
    files = Gallery.create(tmp_path / 'f', INFO)
    PREPARATION.claim(files)
    paths = [f'/data/x/{name}.jpg' for name in 'abc']
    files.append(paths, embeddings(3), [None, FileState(1, 2, 'f' * 64), None])
    lance = convert(files, tmp_path / 'g')
    assert isinstance(lance, LanceGallery)
    assert lance.root == '/data/x'
    back = convert(lance, tmp_path / 'b')
    assert isinstance(back, Gallery)
    assert (back.paths, back.states, back.info) == (files.paths, files.states, files.info)
    assert (tmp_path / 'b/preprocessing.json').read_bytes() == (tmp_path / 'f/preprocessing.json').read_bytes()
    assert torch.equal(back.embeddings(), files.embeddings())
    narrow = LanceGallery.create(tmp_path / 'n', GalleryInfo('m', 0.25, 8, 'other', space_id='s'))
    PREPARATION.claim(narrow)
    narrow.append(['/data/x/c.jpg', '/data/x/d.jpg'], embeddings(2, 4))
    with pytest.raises(ValueError, match=r'1 items of .* are in'):
        merge(lance, narrow)
    merge(lance, narrow, 'replace')
    assert {row[0] for row in lance.search(embeddings(1), 9, where='width = 0.25')[0]} == {
        f'/data/x/{n}.jpg' for n in 'cd'
    }
    with pytest.raises(IncompatibleGalleryError, match='already holds a gallery'):
        merge(files, narrow)
    with pytest.raises(ValueError, match='items of several widths'):
        convert(lance, tmp_path / 'two')
    alien = Gallery.create(tmp_path / 'alien', GalleryInfo('m', 0.25, 8, 'x', space_id='y'))
    with pytest.raises(IncompatibleGalleryError, match='of one metric space'):
        merge(lance, alien)


@pytest.mark.parametrize('kind', ['ivf_pq', 'ivf_hnsw_sq'])
def test_an_index_is_measured_and_reaches_its_target(tmp_path: Path, kind: str) -> None:
    """Without refining, codes of two bytes find few of the nearest: the trap that the measuring is for."""
    info = GalleryInfo('m', 1.0, 32, 'abc')
    gallery = LanceGallery.create(tmp_path / 'g', info, columns=['camera'])
    items = embeddings(3000, size=32)
    gallery.append([str(i) for i in range(3000)], items, labels={'camera': [str(i % 7) for i in range(3000)]})
    ann = build_index(gallery, kind, partitions=8, sub_vectors=2)  # type: ignore[arg-type]
    assert ann is not None
    assert (ann.kind, ann.rows) == (kind, 3000)
    query = embeddings(50, 9, 32)
    exact = [{path for path, _ in row} for row in gallery.search(query, 10, exact=True)]

    def recall(**how: object) -> float:
        found = gallery.search(query, 10, **how)  # type: ignore[arg-type]
        assert all(score == sorted(score, reverse=True) for score in ([s for _, s in row] for row in found))
        return sum(len(wanted & {path for path, _ in row}) for wanted, row in zip(exact, found, strict=True)) / 500

    assert recall() >= 0.9
    assert ann.recall >= 0.95
    if kind == 'ivf_pq':
        careless = gallery.search(query, 10, ann=type(ann)(kind, 8, 1, 1, 3000))
        hits = sum(len(wanted & {path for path, _ in row}) for wanted, row in zip(exact, careless, strict=True))
        assert hits / 500 < 0.6
    best = gallery.search(items[:1], 1)[0][0]
    assert best == ('0', pytest.approx(1, abs=1e-5))
    assert {int(path) % 7 for path, _ in gallery.search(items[:1], 20, where='camera = 5')[0]} == {5}
    # What comes after the index is found as well, and so is what replaces items.
    gallery.append(['0', 'new'], -items[:1].repeat(2, 1), existing='replace')
    assert {path for path, _ in gallery.search(-items[:1], 2)[0]} == {'0', 'new'}
    gallery.tidy(keep_days=0)
    assert {path for path, _ in LanceGallery(tmp_path / 'g').search(-items[:1], 2)[0]} == {'0', 'new'}
    assert build_index(gallery, 'flat') is None
    assert (gallery.ann, len(gallery.table.list_indices())) == (None, 0)
    with pytest.raises(ValueError, match='sub-vectors must divide'):
        build_index(gallery, 'ivf_pq', sub_vectors=5)


def test_items_are_replaced_after_tidying_with_an_index_of_paths(tmp_path: Path) -> None:
    """Where someone made one: merges have matched nothing through it, without a word."""
    gallery = filled(tmp_path / 'g', 600)
    gallery.table.create_scalar_index('path')
    gallery.tidy(keep_days=0)
    chosen = [f'/data/a/{i}.jpg' for i in range(100, 300)]
    gallery.append(chosen, embeddings(200, 7), existing='replace')
    gallery.label(chosen[:1], {'camera': ['99']})
    assert next(part for part in gallery.records()).labels['identity'].count(None) <= 300  # replaced items keep theirs
    found = values(gallery)
    assert len(gallery) == len(found) == 600
    assert [found[path] for path in chosen] == embeddings(200, 7).tolist()
    assert found['/data/a/5.jpg'] == embeddings(600)[5].tolist()
    assert [path for path, _ in gallery.search(embeddings(1), 3, where='camera = 99')[0]] == chosen[:1]


def test_memory_does_not_grow_with_replaced_items(tmp_path: Path) -> None:
    gallery = filled(tmp_path / 'g', 2000)
    chosen = [f'/data/a/{i}.jpg' for i in range(500)]
    peaks = []
    for _ in range(3):
        for _ in range(25):
            gallery.append(chosen, embeddings(500), existing='replace')
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    assert len(gallery) == 2000
    assert peaks[2] - peaks[0] < 60, peaks  # MiB


def meet(folder: Path | str, sign: Path, rounds: int, environment: dict[str, str] | None = None) -> None:
    """Two writers at once."""
    with (
        lance_writer(folder, sign, 'one', 'two', rounds, environment) as (one, _),
        lance_writer(folder, sign, 'two', 'one', rounds, environment) as (two, _),
    ):
        for process in (one, two):
            process.join(200)
            assert process.exitcode == 0


def check_written(gallery: LanceGallery, names: tuple[str, ...], rounds: int) -> None:
    wanted = {f'{name}/{i}/{j}' for name in names for i in range(rounds) for j in range(5)}
    assert sorted(gallery.paths) == sorted(wanted | {f'both/{i}' for i in range(rounds)})
    assert all(row[0] == float(path.split('/')[1]) for path, row in values(gallery).items())


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    meet(tmp_path / 'g', tmp_path / 's', 15)
    check_written(LanceGallery(tmp_path / 'g'), ('one', 'two'), 15)


def test_killed_at_random_moments_and_run_again(tmp_path: Path) -> None:
    """SFSC_KILLS=20 kills that often: each time after none to three transactions, at any moment of the next."""
    kills, moments = int(os.environ.get('SFSC_KILLS', '4')), random.Random(0)
    writer, rounds = partial(lance_writer, tmp_path / 'g', tmp_path / 's', 'one', 'none'), 3 * kills + 10
    (tmp_path / 's.none').touch()
    written = []
    for _ in range(kills):
        with writer(rounds) as (process, told):
            for _ in range(1 + moments.randrange(4)):
                told.recv()
            time.sleep(moments.uniform(0, 0.06))
            assert process.exitcode is None  # at work
            process.kill()
            process.join()
        written.append(len(LanceGallery(tmp_path / 'g')))
    assert 0 < written[-1] < 6 * rounds
    assert written == sorted(written)
    assert not [count for count in written if count % 6], 'a part of a transaction is there'
    with writer(rounds) as (process, _):
        process.join(200)
        assert process.exitcode == 0
    check_written(LanceGallery(tmp_path / 'g'), ('one',), rounds)


def test_a_gallery_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against moto's server: writing, searching, and two writers who meet in the commits alone."""
    server_module = pytest.importorskip('moto.server')
    boto3 = pytest.importorskip('boto3')
    server = server_module.ThreadedMotoServer(ip_address='127.0.0.1', port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f'http://{host}:{port}'
        settings = {
            'AWS_ACCESS_KEY_ID': 'x', 'AWS_SECRET_ACCESS_KEY': 'x', 'AWS_DEFAULT_REGION': 'us-east-1',
            'AWS_REGION': 'us-east-1', 'AWS_ENDPOINT': address, 'AWS_ENDPOINT_URL': address, 'AWS_ALLOW_HTTP': 'true',
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        boto3.client('s3').create_bucket(Bucket='galleries')
        gallery = filled('s3://galleries/first')
        again = open_gallery('s3://galleries/first')
        assert again.search(embeddings(20)[:1], 1)[0][0][0] == '/data/a/0.jpg'
        assert len(gallery) == len(again) == 20
        with pytest.raises(FileNotFoundError, match='no gallery in'):
            open_gallery('s3://galleries/none')
        meet('s3://galleries/g', tmp_path / 's', 3, settings)
        check_written(LanceGallery('s3://galleries/g'), ('one', 'two'), 3)
    finally:
        server.stop()
