"""`sfsc-timm index` on a gallery that is there: changed and missing files, and two commands at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import paint, save_whole, tiny

from sfsc_timm.cli.main import main
from sfsc_timm.retrieval import Gallery

pytest.importorskip('rich')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkpoint, and 8 pictures of two identities."""
    save_whole(tiny(), tmp_path / 'whole')
    paint(tmp_path / 'photos', identities=2)
    return tmp_path


def command(root: Path, *arguments: str) -> list[str]:
    whole, output = str(root / 'whole'), str(root / 'gallery')
    return ['index', str(root / 'photos'), '--checkpoint', whole, '--output', output, '--device', 'cpu', *arguments]


def embedded(root: Path) -> dict[str, torch.Tensor]:
    gallery = Gallery(root / 'gallery')
    names = [str(Path(path).relative_to((root / 'photos').resolve())) for path in gallery.paths]
    return dict(zip(names, gallery.embeddings(), strict=True))


def test_changed_and_missing_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(root)) == 0
    before = embedded(root)
    photos = root / 'photos'
    (photos / 'id0/0_c0.png').write_bytes((photos / 'id1/0_c0.png').read_bytes())
    (photos / 'id0/1_c1.png').unlink()
    capsys.readouterr()

    assert main(command(root, '--changed', 'keep')) == 0
    said = capsys.readouterr().out
    assert '1 files changed since they were embedded: keeping what was embedded' in said
    assert '1 files are gone: keeping their items (--gone drop drops them)' in said
    assert all(torch.equal(embedded(root)[name], value) for name, value in before.items())

    assert main(command(root)) == 0
    said = capsys.readouterr().out
    assert '1 files changed since they were embedded: embedding them again' in said
    assert '7 images, 7 of them in the gallery already' in said
    after = embedded(root)
    assert after.keys() == before.keys()
    torch.testing.assert_close(after['id0/0_c0.png'], before['id1/0_c0.png'], rtol=1e-5, atol=1e-6)
    assert [name for name in before if not torch.equal(after[name], before[name])] == ['id0/0_c0.png']

    assert main(command(root, '--gone', 'drop')) == 0
    said = capsys.readouterr().out
    assert 'files changed' not in said
    assert '1 files are gone: dropping their items' in said
    assert embedded(root).keys() == before.keys() - {'id0/1_c1.png'}
    assert main(command(root)) == 0
    assert 'are gone' not in capsys.readouterr().out


def test_content_is_compared_when_asked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = root / 'photos/id0/0_c0.png', root / 'photos/id1/0_c0.png'
    for path in (file, other):
        path.write_bytes(path.read_bytes().ljust(9000, b'\0'))  # of one size
    assert main(command(root)) == 0
    before = embedded(root)
    found = file.stat()
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    capsys.readouterr()
    assert main(command(root)) == 0
    assert 'files changed' not in capsys.readouterr().out
    assert main(command(root, '--verify')) == 0
    assert '1 files changed since they were embedded: embedding them again' in capsys.readouterr().out
    torch.testing.assert_close(embedded(root)['id0/0_c0.png'], before['id1/0_c0.png'], rtol=1e-5, atol=1e-6)


def test_a_changed_file_that_cannot_be_read_any_more_leaves_the_gallery(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root)) == 0
    file = root / 'photos/id0/0_c0.png'
    file.write_bytes(b'no image')
    assert main(command(root)) == 1
    assert str(file) in capsys.readouterr().err
    assert 'id0/0_c0.png' in embedded(root)
    assert main(command(root, '--on-error', 'skip')) == 0
    assert '7 items at width 1, 16 numbers each; 1 unreadable images skipped' in capsys.readouterr().out
    assert 'id0/0_c0.png' not in embedded(root)


def test_a_gallery_of_an_earlier_version_says_that_it_cannot_tell(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root)) == 0
    gallery = Gallery(root / 'gallery')
    values, paths = gallery.embeddings(), gallery.paths
    gallery.remove(paths)
    gallery.append(paths, values)
    capsys.readouterr()
    assert main(command(root)) == 0
    assert '8 items of an earlier version note no files: not compared (--verify embeds them again)' in (
        capsys.readouterr().out
    )
    assert main(command(root, '--verify')) == 0
    assert None not in Gallery(root / 'gallery').states


@pytest.mark.slow
def test_two_commands_at_once_lose_nothing(root: Path) -> None:
    run = [sys.executable, '-m', 'sfsc_timm', *command(root, '--shard-size', '1', '-b', '1')]
    environment: dict[str, Any] = {**os.environ, 'OMP_NUM_THREADS': '1'}
    started = [
        subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    for process in started:
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error
    assert len(embedded(root)) == 8
    content = json.loads((root / 'gallery/manifest.json').read_text())
    assert content['count'] == 8
