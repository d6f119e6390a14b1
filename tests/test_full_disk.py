"""A disk that is full is told in one line that names the file, and what lay there stays."""

from __future__ import annotations

import argparse
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sfsc_timm._files import replacing, write_failure
from sfsc_timm.cli import main as cli

NUMBERS = torch.zeros(1_000_000)
WRITERS: dict[str, Callable[[Path], Any]] = {
    'torch': lambda path: torch.save(NUMBERS, path),
    'torch to a file': lambda path: torch.save(NUMBERS, path.open('wb')),
    'safetensors': lambda path: save_file({'a': NUMBERS}, path),
    'numpy': lambda path: np.save(path.open('wb'), NUMBERS.numpy()),
    'text': lambda path: path.write_text('x' * 4_000_000),
}


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end at a megabyte: a full disk's way to fail, by another number of the same kind of error."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('writer', WRITERS)
def test_a_file_is_named_and_stays_as_it_was(tmp_path: Path, full_disk: None, writer: str) -> None:
    path = tmp_path / 'state.bin'
    path.write_text('before')
    told = r"state\.bin' could not be written: .*free some space, or choose another folder"
    with pytest.raises(OSError, match=told), replacing(path) as temporary:
        WRITERS[writer](temporary)
    assert path.read_text() == 'before'
    assert [file.name for file in tmp_path.iterdir()] == ['state.bin']


@pytest.mark.parametrize('writer', WRITERS)
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path,
    full_disk: None,
    writer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a library writes into a folder of its own."""
    command = SimpleNamespace(
        __doc__='', add_arguments=lambda parser: None, run=lambda args: WRITERS[writer](tmp_path / 'state.bin')
    )
    monkeypatch.setattr(cli.importlib, 'import_module', lambda *names: command)
    assert cli.main(['data']) == 1
    message = capsys.readouterr().err
    assert 'free some space' in message
    assert len(message.splitlines()) == 1


def test_faults_of_ours_are_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(args: argparse.Namespace) -> None:
        raise RuntimeError('size mismatch')

    command = SimpleNamespace(__doc__='', add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli.importlib, 'import_module', lambda *names: command)
    with pytest.raises(RuntimeError, match='size mismatch'):
        cli.main(['data'])
    assert write_failure(ValueError('x')) is None
    assert write_failure(FileNotFoundError(2, 'No such file')) is None
    damaged = tmp_path / 'a.pt'
    torch.save(NUMBERS[:1000], damaged)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(RuntimeError) as error:
        torch.load(damaged, weights_only=True)
    assert write_failure(error.value) is None
