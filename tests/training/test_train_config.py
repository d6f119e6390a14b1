"""Settings: ranges, YAML, and the command line made from them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers.small_runs import SETTINGS

from sfsc_timm.cli.main import main
from sfsc_timm.training import TrainConfig, read_config, write_config


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'epochs': 0}, 'epochs must be positive'),
        ({'lr': -1.0}, 'lr must be positive'),
        ({'weight_decay': -1e-4}, 'weight_decay must be >= 0'),
        ({'smoothing': 1.5}, 'smoothing must be in'),
        ({'clip_mode': 'nrom'}, "clip_mode must be one of .*'norm'"),
        ({'epochs': 3, 'warmup_epochs': 3}, 'warmup_epochs must be less than epochs'),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_yaml_there_and_back(tmp_path: Path) -> None:
    config = TrainConfig(**{**SETTINGS, 'mean': [0.5], 'recipe_kwargs': {'scope': 'global'}, 'lr': 1e-4})
    write_config(config, tmp_path / 'args.yaml')
    assert TrainConfig(**read_config(tmp_path / 'args.yaml')) == config
    (tmp_path / 'hand.yaml').write_text('lr: 1e-4\nepochs: 3\n')
    assert read_config(tmp_path / 'hand.yaml') == {'lr': 1e-4, 'epochs': 3}


@pytest.mark.parametrize('text', ['[1, 2]', 'learning_rate: 1', 'lr: [', ''])
def test_settings_files_that_are_wrong(text: str, tmp_path: Path) -> None:
    (tmp_path / 'args.yaml').write_text(text)
    if text:
        with pytest.raises(ValueError, match=r'args\.yaml'):
            read_config(tmp_path / 'args.yaml')
    else:
        assert read_config(tmp_path / 'args.yaml') == {}
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / 'none.yaml')


def test_every_setting_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    shown = capsys.readouterr().out
    for entry in fields(TrainConfig):
        assert f'--{entry.name.replace("_", "-")}' in shown
    for name in ('sfsc-paper', 'asymmetric-s', 'aggregation='):
        assert name in shown


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TrainConfig(**{**SETTINGS, 'epochs': 5, 'experiment': 'run', 'output': str(tmp_path)})
    write_config(settings, tmp_path / 'settings.yaml')
    flags = ['--config', str(tmp_path / 'settings.yaml'), '--epochs', '1', '--warmup-epochs', '0']
    flags += ['--recipe', 'projection', '--recipe-kwargs', 'scope=layer', '--log-tensorboard']
    assert main(['train', *flags]) == 0
    shown = capsys.readouterr().out
    assert 'epoch 1/1' in shown
    assert 'M(query width, gallery width)' in shown
    saved = read_config(tmp_path / 'run/args.yaml')
    assert (saved['epochs'], saved['recipe'], saved['recipe_kwargs']) == (1, 'projection', {'scope': 'layer'})
    assert list((tmp_path / 'run').glob('events.out.tfevents*'))
    assert main(['train', *flags]) == 1
    assert '--resume' in capsys.readouterr().err
    checkpoint = str(tmp_path / 'run/last.pth.tar')
    data = ['--data', 'glyphs', '--data-kwargs', 'train_identities=12', 'test_identities=6', 'size=16']
    assert main(['eval', '--checkpoint', checkpoint, *data, '--output', str(tmp_path / 'eval')]) == 0


GLYPHS = ['--data', 'glyphs', '--data-kwargs', 'train_identities=6', 'test_identities=6', '--img-size', '16']


@pytest.mark.parametrize(
    'flags, message',
    [
        ([], 'data is missing'),
        (['--data', 'glyphs', '--model', 'resnet18'], 'must be slimmable'),
        (['--data', 'glyphs', '--model', 'sfsc_resnet51'], 'not known to timm'),
        (['--data', 'glyphs', '--recipe', 'magic'], 'recipe must be one of'),
        ([*GLYPHS, '--num-instances', '5', '--batch-size', '32'], 'multiple of num_instances'),
        (['--data', 'market1501'], 'root is missing'),
        (['--resume', 'nowhere'], 'no run to resume'),
        (['--config', 'nowhere.yaml'], 'no settings at'),
        (['--data', 'glyphs', '--device', 'abacus'], "device 'abacus' cannot be used"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if '--resume' in flags else ['--output', str(tmp_path)]
    assert main(['train', *flags, *out]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
