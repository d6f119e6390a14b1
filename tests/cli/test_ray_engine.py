"""`sfsc-timm index --engine ray`: two workers on raylets of their own, also where they or the run are killed.

The cluster is of this machine: a head without cores, and two nodes of one core each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import paint, save_whole, tiny

from sfsc_timm.cli.main import main
from sfsc_timm.retrieval import LanceGallery, Store, open_gallery

os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
cluster_utils = pytest.importorskip('ray.cluster_utils')
pytest.importorskip('lancedb')
pytest.importorskip('rich')
pytestmark = pytest.mark.ray

IMAGES = 120


@pytest.fixture(scope='module')
def cluster() -> Iterator[Any]:
    made = cluster_utils.Cluster()
    try:
        made.add_node(num_cpus=0, object_store_memory=80 << 20, include_dashboard=False)
        for _ in range(2):
            made.add_node(num_cpus=1, object_store_memory=80 << 20)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, pictures of which two cannot be read, and their plain gallery."""
    root = tmp_path_factory.mktemp('ray')
    save_whole(tiny(), root / 'whole')
    paint(root / 'photos', identities=6, images=IMAGES // 6, size=48)
    for name in ('id0/0_c0.png', 'id5/9_c1.png'):
        (root / 'photos' / name).write_bytes(b'no image')
    torch.set_num_threads(1)
    assert main(command(root, 'here', '--on-error', 'skip')) == 0
    return root


def command(root: Path, name: str, *arguments: str) -> list[str]:
    return [
        'index', str(root / 'photos'), '--checkpoint', str(root / 'whole'), '--output', str(root / name),
        '--width', '0.5', '--img-size', '256', '--device', 'cpu', '-b', '4', '--shard-size', '8', *arguments,
    ]  # fmt: skip


def by_ray(root: Path, name: str, cluster: Any, *arguments: str) -> list[str]:
    return command(root, name, '--engine', 'ray', '--address', cluster.address, '--store', 'lance', *arguments)


def started(arguments: list[str]) -> subprocess.Popen[str]:
    run = [sys.executable, '-m', 'sfsc_timm', *arguments]
    return subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_equal(found: Store, wanted: Store) -> None:
    """The same items: embeddings to 1e-6, since one width alone may be computed by other kernels; files exactly."""
    one, two = contents(found), contents(wanted)
    assert one.keys() == two.keys()
    for path, (row, state) in two.items():
        assert one[path][0] == pytest.approx(row, rel=0, abs=1e-6)
        assert one[path][1] == state


def contents(gallery: Store) -> dict[str, tuple[list[float], object]]:
    return {
        path: (row, state)
        for part in gallery.records()
        for path, row, state in zip(part.paths, part.embeddings.tolist(), part.states, strict=True)
    }


def items(folder: Path) -> int:
    try:
        return len(LanceGallery(folder))
    except FileNotFoundError:
        return 0


def wait_for_items(folder: Path, process: subprocess.Popen[str]) -> None:
    while not items(folder):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def wait_for_actor(process: subprocess.Popen[str]) -> int:
    """A process that embeds at this moment, by its title."""
    while True:
        assert process.poll() is None, process.communicate()[0]
        for folder in Path('/proc').glob('[0-9]*'):
            with suppress(OSError):
                title = (folder / 'cmdline').read_bytes()
                if title.startswith(b'ray::MapWorker(MapBatches(_Embedder)).submit'):
                    return int(folder.name)
        time.sleep(0.01)


def test_it_equals_the_plain_engine(root: Path, cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(by_ray(root, 'ray', cluster, '--unreadable', str(root / 'bad.csv'))) == 0
    said = capfd.readouterr().out
    assert 'Unreadable images' in said
    assert f'{IMAGES - 2} items at width 0.5, 16 numbers each; 2 unreadable images skipped' in said
    rows = (root / 'bad.csv').read_text().splitlines()
    assert rows[0] == 'path,reason'
    assert {Path(row.partition(',')[0]).name for row in rows[1:]} == {'0_c0.png', '9_c1.png'}
    assert all('it is no image that Pillow can read' in row for row in rows[1:])
    made = open_gallery(root / 'ray')
    assert isinstance(made, LanceGallery)
    check_equal(made, open_gallery(root / 'here'))
    assert main(by_ray(root, 'ray', cluster)) == 0
    assert f'{IMAGES} images, {IMAGES - 2} of them in the gallery already' in capfd.readouterr().out


def test_pixels_made_by_other_processes_are_the_same(root: Path, cluster: Any) -> None:
    """As on a cluster with GPUs; into a gallery of files, where an unreadable image may also stop the run."""
    arguments = command(root, 'files', '--engine', 'ray', '--address', cluster.address, '--workers', '1')
    assert main([*arguments, '--on-error', 'raise']) == 1
    assert main(arguments) == 0
    check_equal(open_gallery(root / 'files'), open_gallery(root / 'here'))


def test_a_killed_run_goes_on_where_it_was(root: Path, cluster: Any) -> None:
    process = started(by_ray(root, 'killed', cluster))
    wait_for_items(root / 'killed', process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = contents(LanceGallery(root / 'killed'))
    assert 0 < len(before) < IMAGES - 2
    again = started(by_ray(root, 'killed', cluster))
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert f'{IMAGES} images, {len(before)} of them in the gallery already' in said
    after = contents(LanceGallery(root / 'killed'))
    assert {path: after[path] for path in before} == before  # not embedded again
    check_equal(LanceGallery(root / 'killed'), open_gallery(root / 'here'))


def test_killed_workers_are_replaced(root: Path, cluster: Any) -> None:
    """First a process, then a machine: another one has come meanwhile, and each embeds."""
    process = started(by_ray(root, 'workers', cluster))
    lost = next(iter(cluster.worker_nodes))
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    os.kill(wait_for_actor(process), signal.SIGKILL)
    cluster.remove_node(lost, allow_graceful=False)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    check_equal(LanceGallery(root / 'workers'), open_gallery(root / 'here'))


def test_what_is_of_one_engine_is_refused_by_the_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(root, 'no', '--actors', '2')) == 1
    assert '--actors is of --engine ray' in capsys.readouterr().err
    assert main(command(root, 'no', '--engine', 'ray', '--device', 'cuda:1')) == 1
    assert '--device must be cpu or cuda' in capsys.readouterr().err
