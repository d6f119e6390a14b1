"""A flag that would change nothing is refused, not passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.checkpoints import DATA_CONFIG, paint, tiny

from sfsc_timm.checkpoints import load_checkpoint_model, save_widths
from sfsc_timm.cli.main import main


@pytest.fixture(scope='module')
def widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('widths')
    save_widths(tiny(widths=(0.5, 1.0)), folder, data_config=DATA_CONFIG)
    return folder


@pytest.mark.parametrize('flag', [['--use-ema'], ['--model', 'resnet18'], ['--model-kwargs', 'embed_dim=3']])
def test_a_folder_says_itself_what_files_do_not(
    widths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: list[str]
) -> None:
    photos = tmp_path / 'photos'
    paint(photos, 1, 1)
    output = ['--output', str(tmp_path / 'out'), '--device', 'cpu']
    for source in (widths, widths / 'w0.5'):
        assert main(['index', str(photos), '--checkpoint', str(source), *output, *flag]) == 1
        assert f'{flag[0]} is for files of weights' in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'path,value',
    [
        (('architecture',), None),
        (('model_args', 'channels'), {}),
        (('model_args', 'global_pool'), []),
        (('pretrained_cfg', 'input_size'), [3, 32]),
    ],
)
def test_configs_at_which_timm_stumbles_are_named(
    widths: Path, tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    folder = tmp_path / 'w0.5'
    folder.mkdir()
    for file in (widths / 'w0.5').iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / 'config.json').read_text())
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'w0\.5'):
        load_checkpoint_model(folder)
