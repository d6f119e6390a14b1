"""The main job on a tiny scale: files, figures, determinism, and the proof by plain timm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from sfsc_timm.cli.main import main

pytest.importorskip('rich')
pytest.importorskip('matplotlib')

SMALL = ['--epochs', '1', '--identities', '24', '--batch-size', '32', '--threads', '1']
FILES = {'matrix.json', 'matrix.png', 'accuracy-cost.png', 'training.csv', 'training.png', 'matches.png'}
FOLDERS = {'w0.25', 'w0.5', 'w0.75', 'w1'}


@pytest.fixture(scope='module')
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('quickstart')
    assert main(['quickstart', '--output', str(folder), *SMALL]) == 0
    return folder


def test_writes_its_files(output: Path) -> None:
    assert {path.name for path in output.iterdir()} == FILES | FOLDERS


def test_matrix_has_the_documented_form(output: Path) -> None:
    matrix = json.loads((output / 'matrix.json').read_text())
    assert matrix['widths'] == [0.25, 0.5, 0.75, 1.0]
    cells = {name: np.array(matrix[name]) for name in ('mAP', 'mINP', 'rank1', 'rank5', 'rank10')}
    assert {values.shape for values in cells.values()} == {(4, 4)}
    assert all(((values >= 0) & (values <= 100)).all() for values in cells.values())
    # Every query has an average precision; that one finds a match first is not sure after so short a training.
    assert (cells['mAP'] > 0).all()
    assert (cells['mINP'] > 0).all()
    assert (cells['rank1'] <= cells['rank5']).all()
    assert (cells['rank5'] <= cells['rank10']).all()
    assert matrix['params'] == sorted(matrix['params'])
    assert matrix['macs'] == sorted(matrix['macs'])
    assert matrix['macs'][0] < matrix['macs'][-1] / 8


def test_folders_are_plain_timm(output: Path) -> None:
    sizes = []
    for folder in sorted(FOLDERS):
        model = timm.create_model(f'local-dir:{output / folder}', pretrained=True)
        assert type(model).__module__ == 'timm.models.resnet'
        assert model.eval()(torch.randn(1, 1, 32, 32)).shape == (1, 128)
        sizes.append((output / folder / 'model.safetensors').stat().st_size)
        config = json.loads((output / folder / 'config.json').read_text())
        assert config['architecture'] == 'resnet18d'
        assert config['sfsc']['width'] == float(folder[1:])
    assert sizes == sorted(sizes)


def test_the_same_seed_gives_the_same_numbers(output: Path, tmp_path: Path) -> None:
    assert main(['quickstart', '--output', str(tmp_path), *SMALL]) == 0
    first, second = (json.loads((folder / 'matrix.json').read_text()) for folder in (output, tmp_path))
    for name in ('mAP', 'rank1', 'params', 'macs'):
        assert first[name] == second[name]
    assert (output / 'training.csv').read_text() == (tmp_path / 'training.csv').read_text()


def test_own_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for identity in range(8):
        folder = tmp_path / 'photos' / f'thing{identity}'
        folder.mkdir(parents=True)
        base = rng.integers(0, 255, (40, 40, 3))
        for i in range(4):
            noisy = np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f'{i}.png')
    arguments = ['--data', 'folder', '--data-dir', str(tmp_path / 'photos'), '--batch-size', '8', '--epochs', '1']
    assert main(['quickstart', '--output', str(tmp_path / 'out'), '--threads', '1', *arguments]) == 0
    assert (tmp_path / 'out' / 'matches.png').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--data', 'folder'], '--data-dir'),
        (['--data', 'folder', '--data-dir', '/does/not/exist'], '/does/not/exist'),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['quickstart', '--output', str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
