"""Names of files with markup, control characters and bytes that are no UTF-8, as commands print them."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from helpers.checkpoints import paint, save_whole, tiny

from sfsc_timm.cli._terminal import visible
from sfsc_timm.cli.main import main

pytest.importorskip('rich')

ODD = {
    '[red]x[bold].png': '[red]x[bold].png',
    'esc\x1b[31m\x1b]0;owned\x07.png': r'esc\x1b[31m\x1b]0;owned\x07.png',
    'line\nbreak\u202e.png': r'line\nbreak\u202e.png',
    'bad\udcff.png': r'bad\udcff.png',
}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('odd')
    save_whole(tiny(), root / 'whole')
    source = paint(root / 'plain', identities=1)[0]
    (root / 'photos').mkdir()
    try:
        for name in ODD:
            (root / 'photos' / name).write_bytes(source.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip('this file system takes no such names')
    return root


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Status, output and errors of a command whose streams take UTF-8 and nothing else."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding='utf-8', errors='strict') for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', streams[0])
        patch.setattr(sys, 'stderr', streams[1])
        status = main([*arguments, '--device', 'cpu'])
        for stream in streams:
            stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    return status, out, err


def test_index_and_search(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, gallery = str(root / 'whole'), str(root / 'gallery')
    status, _, error = run(
        'index', str(root / 'photos'), '--checkpoint', made, '--output', gallery, monkeypatch=monkeypatch
    )
    assert (status, error) == (0, '')
    search = ['search', gallery, str(root / 'photos'), '--checkpoint', made, '-k', '4']
    status, shown, error = run(*search, monkeypatch=monkeypatch)
    assert (status, error) == (0, '')
    lines = shown.splitlines()
    assert len(lines) == 4 * 5
    assert {line.rsplit('/', 1)[1] for line in lines if not line.startswith('  ')} == set(ODD.values())
    assert {line.rsplit('/', 1)[1] for line in lines if line.startswith('  ')} == set(ODD.values())
    assert all(character.isprintable() or character == '\n' for character in shown)
    status, shown, _ = run(*search, '--json', monkeypatch=monkeypatch)
    assert status == 0
    assert {os.path.basename(result['query']) for result in json.loads(shown)['results']} == set(ODD)


@pytest.mark.parametrize('workers', ['0', '2'])
def test_an_unreadable_file_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    bad = root / 'no image\x1b[31m\udcff.png'
    bad.write_bytes(b'no image')
    made = str(root / 'whole')
    command = ['index', str(root), '--checkpoint', made, '--output', str(root / 'other'), '-j', workers]
    status, _, error = run(*command, monkeypatch=monkeypatch)
    assert status == 1
    assert error.startswith('sfsc-timm: ')
    assert error.count('\n') == 1
    assert 'no image' in error
    assert '\x1b' not in error


def test_visible_text() -> None:
    assert visible('φ1/16 ✗ naïve\n\tä') == 'φ1/16 ✗ naïve\n\tä'
    assert visible('a\nb', keep='') == r'a\nb'
    assert visible('\x9b31m\x7f\ud800') == r'\x9b31m\x7f\ud800'
