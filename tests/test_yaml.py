"""Settings files that are hostile or broken cost no time, and the message says where the fault is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sfsc_timm._yaml import read_yaml

BOMB = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]\n' for a, b in zip('abcdefgh', 'bcdefghi', strict=True)
)


def file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_reads_a_mapping(tmp_path: Path) -> None:
    assert read_yaml(file(tmp_path, 'epochs: 2\nmodel_kwargs: {widths: [0.5, 1]}\n')) == {
        'epochs': 2,
        'model_kwargs': {'widths': [0.5, 1]},
    }
    assert read_yaml(file(tmp_path, '# nothing\n')) == {}


@pytest.mark.parametrize(
    'text,message',
    [
        (BOMB, r'run\.yaml.*line 1.*anchors and aliases.*write the values out'),
        ('a: &x [*x]\n', r'run\.yaml.*line 1.*anchors and aliases'),
        ('a: ' + '[' * 5000 + ']' * 5000, r'run\.yaml.*nested.*20'),
        ('a: ' + '{b: ' * 100 + '1' + '}' * 100, r'run\.yaml.*nested.*20'),
        ('a: ' + 'x' * 2_000_000, r'run\.yaml.*2,000,003 bytes.*is it a settings file'),
        ('epochs: 1\nepochs: 2\n', r"run\.yaml.*line 2.*'epochs' twice"),
        ('epochs: [1\n', r'run\.yaml.*is no YAML.*line 2'),
        ('a\tb: : c', r'run\.yaml.*is no YAML'),
        ('!!python/object/apply:os.system ["true"]', r'run\.yaml.*is no YAML'),
        ('? [a, b]\n: c', r'run\.yaml.*line 1.*keys must be names'),
        ('1: 2', r'run\.yaml.*line 1.*keys must be names'),
        ('- a', r'run\.yaml.*must hold a mapping.*got a list'),
        ('just text', r'run\.yaml.*must hold a mapping.*got a str'),
        (b'epochs: \xff', r'run\.yaml.*is not UTF-8'),
        ('a: \x00', r'run\.yaml.*is no YAML'),
        ('a: 2001-99-99', r'run\.yaml.*is no YAML'),
        ('a: ' + '9' * 6000, r'run\.yaml.*is no YAML'),
    ],
)
def test_hostile_and_broken_files_are_refused_quickly(tmp_path: Path, text: str | bytes, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as error:
        read_yaml(file(tmp_path, text))
    assert time.perf_counter() - start < 5
    assert len(str(error.value)) < 1000


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    for name in ('absent', 'pipe', '.'):
        with pytest.raises(FileNotFoundError, match='no settings at'):
            read_yaml(tmp_path / name)
