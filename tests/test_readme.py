"""The READMEs hold what is true: their examples run, their links and names lead somewhere.

A comment above a fenced block says what becomes of it here:

    <!-- not run: REASON -->   nothing
    <!-- parsed: REASON -->    the programs' own parsers read its commands; names of models and data sets must exist

Without one, the Python blocks of a file are executed one after the other, and the commands of a shell block run, beside
small stand-ins for the files that they name.
"""

from __future__ import annotations

import subprocess
import warnings
from configparser import ConfigParser
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import timm
import torch
from helpers.checkpoints import paint, save_training, tiny
from helpers.readme import READMES, ROOT, anchors, blocks, code_spans, commands, links, parse

from sfsc_timm.cli.main import main
from sfsc_timm.data import list_data

SHELL, PYTHON = ('sh', 'bash', 'shell', 'console'), ('python', 'py')
FIRST = ROOT / 'README.md'


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each = pytest.mark.parametrize('readme', READMES, ids=name_of)


@cache
def names_after(readme: Path) -> dict[str, Any]:
    """Executes the Python blocks of a file; images, labels and all names that they leave."""
    namespace: dict[str, Any] = {'images': torch.randn(2, 3, 64, 64), 'labels': torch.tensor([0, 1])}
    for block in blocks(readme, *PYTHON):
        code = compile('\n' * (block.line - 1) + block.text, str(readme), 'exec')
        if block.fate == 'run':
            exec(code, namespace)
    return namespace


@each
def test_python_runs(readme: Path) -> None:
    names_after(readme)


def test_the_first_example_does_what_it_says() -> None:
    names = names_after(FIRST)
    query, gallery = names['query'], names['gallery']
    assert query.shape == gallery.shape == (2, 256)
    expected = names['small'](names['images'])
    assert (expected - query).abs().max() <= 1e-5 * query.abs().max()
    assert all(p.grad is not None for p in names['task'].parameters())


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the images and the run that the examples name."""
    pictures = paint(tmp_path / 'photos', identities=4, images=16)  # refit asks for 50
    (tmp_path / 'query.jpg').write_bytes(pictures[0].read_bytes())
    (tmp_path / 'runs' / 'photos').mkdir(parents=True)
    save_training(tiny(), tmp_path / 'runs' / 'photos' / 'last.pth.tar')
    monkeypatch.chdir(tmp_path)


@each
def test_commands_run(readme: Path, stand_ins: None) -> None:
    for extra in ('rich', 'matplotlib', 'onnxscript'):
        pytest.importorskip(extra)
    for block in blocks(readme, *SHELL):
        for words in commands(block) if block.fate == 'run' else ():
            assert words[0] == 'sfsc-timm', f'line {block.line}: {words} cannot run here; mark the block and say why'
            assert main(words[1:]) == 0, (block.line, words)


@each
def test_commands_parse(readme: Path) -> None:
    setup = ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    for block in blocks(readme, *SHELL):
        for words in commands(block) if block.fate == 'parsed' else ():
            if words[:2] == ['pip', 'install']:
                assert words[2].removeprefix('.[').removesuffix(']') in setup['options.extras_require'], words
                continue
            given = vars(parse(words))
            assert given.get('data') in (None, *list_data()), words
            names = given.get('model') or []
            assert all(map(timm.is_model, [names] if isinstance(names, str) else names)), words


def test_every_command_of_the_first_readme_is_told() -> None:
    from sfsc_timm.cli.main import COMMANDS

    told = {words[1] for block in blocks(FIRST, *SHELL) for words in commands(block) if words[0] == 'sfsc-timm'}
    assert told == set(COMMANDS)
    assert len(FIRST.read_text(encoding='utf-8').splitlines()) <= 150


@each
def test_links_lead_somewhere(readme: Path) -> None:
    for target in links(readme):
        path, _, anchor = target.partition('#')
        file = (readme.parent / path).resolve() if path else readme
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
        ignored = subprocess.run(['git', 'check-ignore', '-q', str(file)], cwd=ROOT, check=False).returncode == 0
        assert not ignored, f'{target} is there, but git ignores it'


@each
def test_names_exist(readme: Path) -> None:
    for code in code_spans(readme):
        words = code.split()
        if words[:2] == ['python', '-m']:
            assert find_spec(words[2]), code
        elif '/' in words[0] and words[0].split('/')[0] in ('sfsc_timm', 'benchmarks', 'weights', 'tests', 'results'):
            assert any((top / words[0]).exists() for top in (ROOT, readme.parent)), code
        elif words[0].startswith('sfsc_timm.') and words[0].replace('.', '_').isidentifier():
            with warnings.catch_warnings():
                warnings.simplefilter('error', DeprecationWarning)
                resolve_name(words[0])
