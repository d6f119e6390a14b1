"""`sfsc-timm` itself and `sfsc-timm data`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.checkpoints import paint

import sfsc_timm.data
from sfsc_timm.cli import main as main_module
from sfsc_timm.cli.main import COMMANDS, main
from sfsc_timm.data import list_data

pytest.importorskip('rich')


def test_help_lists_the_commands_without_importing_them(monkeypatch, capsys):
    monkeypatch.setattr(main_module.importlib, 'import_module', None)
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(f'    {name} ' in printed or f'    {name}\n' in printed for name in COMMANDS)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_each_command_shows_examples(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, '--help'])
    assert stop.value.code == 0
    assert f'\n  sfsc-timm {name} ' in capsys.readouterr().out


HELP = """
import sys
from sfsc_timm.cli.main import COMMANDS, main
for name in COMMANDS:
    try:
        main([name, '--help'])
    except SystemExit as stop:
        assert stop.code == 0
    sys.stdout.flush()
if __debug__ or main.__doc__:
    raise SystemExit('docstrings are there')
"""


def test_help_without_docstrings():
    """As `python -OO` runs it; all commands in one process, which is what takes the time."""
    done = subprocess.run([sys.executable, '-OO', '-c', HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f'usage: sfsc-timm {name} ' in done.stdout
    assert done.stdout.count('A CHECKPOINT is a folder') >= 4
    assert '\n  bct-s         BCT-S\n' in done.stdout


def test_wrong_usage_has_status_2(capsys):
    for arguments in ([], ['nonesuch'], ['eval'], ['data', 'glyphs', '--data-kwargs', 'size']):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "--data-kwargs needs NAME=VALUE, got 'size'" in capsys.readouterr().err


def test_list(capsys):
    assert main(['data']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_data()
    assert all(len(line.split()) > 3 for line in lines)


def test_summary(tmp_path, capsys):
    paint(tmp_path)
    assert main(['data', 'folder', '--data-dir', str(tmp_path), '--data-kwargs', 'train_share=0.34', 'seed=1']) == 0
    printed = capsys.readouterr().out
    assert 'images  identities' in printed
    assert 'query and gallery are the same images' in printed


def test_build_emoji(tmp_path, monkeypatch, capsys):
    built = []

    def build_emoji(root, *, size=64, progress=None):
        built.append((root, size))
        root.mkdir()
        for design in ('noto', 'twemoji'):
            for done in (1, 2):
                paint(root, identities=2)
                progress(design, done, 2)
        rows = [f'id{i}/{j}_c{j % 2}.png,{i},{j % 2},{"test" if i else "train"}' for i in range(2) for j in range(4)]
        (root / 'manifest.csv').write_text('path,identity,camera,split\n' + '\n'.join(rows) + '\n')

    monkeypatch.setattr(sfsc_timm.data, 'build_emoji', build_emoji)
    assert main(['data', 'emoji', '--build', '--data-dir', str(tmp_path / 'e'), '--data-kwargs', 'size=48']) == 0
    assert built == [(tmp_path / 'e', 48)]
    assert 'emoji' in capsys.readouterr().out

    def broken(*args, **kwargs):
        raise RuntimeError('npm pack failed')

    monkeypatch.setattr(sfsc_timm.data, 'build_emoji', broken)
    assert main(['data', 'emoji', '--build', '--data-dir', str(tmp_path / 'f')]) == 1
    assert capsys.readouterr().err == 'sfsc-timm: npm pack failed\n'


@pytest.mark.parametrize('arguments, message', [
    (['--build'], 'name the data set'),
    (['nonesuch'], 'must be one of'),
    (['glyphs', '--build'], '--build is for emoji'),
    (['emoji', '--build'], '--build needs --data-dir'),
    (['veri776'], 'image_train/'),
    (['veri776', '--data-dir', 'nowhere'], 'Not found'),
    (['glyphs', '--data-dir', '.'], 'must be left out'),
    (['glyphs', '--data-kwargs', 'size=x'], "size of 'glyphs' must be"),
])  # fmt: skip
def test_errors(capsys, arguments, message):
    assert main(['data', *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('sfsc-timm: ')
    assert message in error
