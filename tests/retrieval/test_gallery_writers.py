"""Several writers of one gallery, processes that die in the midst of it, and items that are replaced or dropped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sfsc_timm.retrieval import Gallery, GalleryInfo
from sfsc_timm.retrieval import gallery as gallery_module
from sfsc_timm.retrieval.lock import exclusive
from sfsc_timm.retrieval.shards import FileState

INFO = GalleryInfo('m', 1.0, 4, 'abc')

WRITER = """
import sys, time
from pathlib import Path
import torch
from sfsc_timm.retrieval import Gallery, GalleryInfo
folder, first, other = sys.argv[1:]
Path(f'{folder}.{first}').touch()
while not Path(f'{folder}.{other}').exists():
    time.sleep(0.001)
gallery = Gallery.create(folder, GalleryInfo('m', 1.0, 4, 'abc'))
for i in range(40):
    own = [f'{first}/{i}/{j}' for j in range(5)]
    gallery.append([*own, f'both/{i}'], torch.full((6, 4), float(i)), existing='skip')
"""

HOLDER = """
import os, sys
from pathlib import Path
from sfsc_timm.retrieval.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
    os._exit(9)  # no clean-up
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / 'gallery'
    writers = [start(WRITER, folder, 'one', 'two'), start(WRITER, folder, 'two', 'one')]
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ''
        assert writer.returncode == 0
    gallery = Gallery(folder)
    wanted = {f'{name}/{i}/{j}' for name in ('one', 'two') for i in range(40) for j in range(5)}
    assert sorted(gallery.paths) == sorted(wanted | {f'both/{i}' for i in range(40)})
    values = dict(zip(gallery.paths, gallery.embeddings()[:, 0].tolist(), strict=True))
    assert all(value == float(path.split('/')[1]) for path, value in values.items())
    assert not [path.name for path in folder.iterdir() if path.name.startswith('.')]


def test_the_lock_of_a_living_process_holds_and_that_of_a_dead_one_does_not(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path, INFO)
    holder = start(HOLDER, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == 'held\n'
    message = rf'is being written by another process \(process {holder.pid}\) for over 0.1 seconds'
    with pytest.raises(TimeoutError, match=message), exclusive(tmp_path, patience=0.1):
        pass
    holder.communicate(timeout=60)
    assert (tmp_path / '.lock').read_text() == f'process {holder.pid}'  # left behind
    begin = time.monotonic()
    gallery.append(['a'], torch.ones(1, 4))
    assert time.monotonic() - begin < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ['00000.safetensors', 'manifest.json']


def test_one_object_sees_what_another_wrote(tmp_path: Path) -> None:
    one, two = Gallery.create(tmp_path, INFO), Gallery.create(tmp_path, INFO)
    one.append(['a'], torch.ones(1, 4))
    with pytest.raises(ValueError, match='in the gallery already'):
        two.append(['a'], torch.ones(1, 4))
    two.append(['a', 'b'], torch.full((2, 4), 2.0), existing='skip')
    assert two.paths == ('a', 'b')
    assert two.embeddings()[:, 0].tolist() == [1, 2]
    with pytest.raises(ValueError, match='existing must be one of'):
        two.append(['c'], torch.ones(1, 4), existing='add')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='states must be one of each path'):
        two.append(['c'], torch.ones(1, 4), states=[])


def test_replaced_and_dropped_items(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path, INFO)
    states = [FileState(i, 10**18 + i, f'{i:064x}') for i in range(6)]
    gallery.append(['a', 'b', 'c'], torch.arange(12.0).view(3, 4), states[:3])
    gallery.append(['d', 'e', 'f'], torch.arange(12.0, 24.0).view(3, 4), states[3:])
    identity = gallery.content_id
    gallery.append(['e', 'b'], torch.tensor([[-1.0] * 4, [-2.0] * 4]), [None, None], existing='replace')
    for each in (gallery, Gallery(tmp_path)):
        assert each.paths == ('a', 'c', 'd', 'f', 'e', 'b')
        assert each.embeddings()[:, 0].tolist() == [0, 8, 12, 20, -1, -2]
        assert each.states == (states[0], states[2], states[3], states[5], None, None)
        assert each.content_id != identity
    gallery.remove(['d', 'f', 'b', 'unknown'])
    assert Gallery(tmp_path).paths == ('a', 'c', 'e')
    gallery.remove(gallery.paths)
    assert len(Gallery(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['manifest.json']


class Killed(BaseException):
    """Nothing that the process does comes after this."""


@pytest.mark.parametrize('deadly', range(5))
def test_a_kill_while_items_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: int) -> None:
    """At each rename and deletion, all old items or all new ones are there, and leftovers are swept by the next."""
    gallery = Gallery.create(tmp_path, INFO)
    for name in 'abc':
        gallery.append([f'{name}0', f'{name}1'], torch.ones(2, 4))
    calls, dead = [0], [False]

    def mortal(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            if dead[0] or calls[0] == deadly:
                dead[0] = True
                raise Killed
            calls[0] += 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', mortal(os.replace))
        patch.setattr(Path, 'unlink', mortal(Path.unlink))
        patch.setattr(gallery_module, 'exclusive', lambda folder: __import__('contextlib').nullcontext())
        with pytest.raises(Killed):
            gallery.append(['a0', 'b0'], torch.zeros(2, 4), existing='replace')
    found = Gallery(tmp_path)
    values = dict(zip(found.paths, found.embeddings()[:, 0].tolist(), strict=True))
    new = values['a0'] == 0
    assert values == {'a0': 1 - new, 'b0': 1 - new, 'a1': 1, 'b1': 1, 'c0': 1, 'c1': 1}
    found.append(['d'], torch.ones(1, 4))
    left = {path.name for path in tmp_path.iterdir()} - {'manifest.json'}
    assert left == {shard.file for shard in Gallery(tmp_path)._shards}
