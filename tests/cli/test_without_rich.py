"""Every command says what it needs where rich, an extra, is not installed."""

from __future__ import annotations

import sys

import pytest

from sfsc_timm.cli.main import COMMANDS, main

ARGUMENTS = {
    'quickstart': [],
    'train': ['--data', 'glyphs'],
    'eval': ['--checkpoint', 'none', '--data', 'glyphs'],
    'index': ['photos', '--checkpoint', 'none'],
    'search': ['gallery', 'photo.png', '--checkpoint', 'none'],
    'publish': ['none', '--repo', 'user/name'],
    'bench': ['none'],
    'export': ['none'],
    'data': [],
    'gallery': ['info', 'gallery'],
    'demo': [],
    'refit': ['none', '--images', 'photos', '--output', 'refitted'],
}


def test_every_command_is_tried():
    assert COMMANDS.keys() <= ARGUMENTS.keys()


@pytest.mark.parametrize('name', COMMANDS)
def test_says_which_extra_to_install(name, tmp_path, monkeypatch, capsys):
    for module in [known for known in sys.modules if known.split('.')[0] == 'rich'] + ['rich']:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    assert main([name, *ARGUMENTS[name]]) == 1
    captured = capsys.readouterr()
    assert captured.err == "sfsc-timm: the command line needs rich: pip install 'sfsc-timm[cli]'\n"
    assert captured.out == ''
    assert not list(tmp_path.iterdir())
