"""Settings: ranges, YAML, and the command line made from them."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_runs import SETTINGS

from sfsc_timm.cli.main import main
from sfsc_timm.training import TrainConfig, read_config, write_config


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'epochs': 0}, 'epochs must be a whole number >= 1, got 0; the default is 20'),
        ({'lr': -1.0}, 'lr must be a number > 0'),
        ({'weight_decay': -1e-4}, 'weight_decay must be a number >= 0'),
        ({'smoothing': 1.5}, r'smoothing must be a number in \[0, 1\)'),
        ({'clip_mode': 'nrom'}, "clip_mode must be one of .*'norm'"),
        ({'epochs': 3, 'warmup_epochs': 3}, 'warmup_epochs must be less than epochs'),
        ({'amp': 'no'}, "amp must be true or false, got 'no'; in YAML"),
        ({'model_ema': 'false'}, 'model_ema must be true or false'),
        ({'preload': 1}, 'preload must be true or false'),
        ({'epochs': 2.5}, 'epochs must be a whole number >= 1, got 2.5'),
        ({'epochs': True}, 'epochs must be a whole number'),
        ({'lr': math.nan}, 'lr must be a number > 0, got nan'),
        ({'lr': 10**400}, 'lr must be a number > 0, got 1000'),
        ({'lr': '0.1'}, "lr must be a number > 0, got '0.1'"),
        ({'momentum': 2}, r'momentum must be a number in \[0, 1\), got 2'),
        ({'clip_grad': -1}, 'clip_grad must be a number > 0, got -1; leave it out for none'),
        ({'layer_decay': -1}, r'layer_decay must be a number in \(0, 1\]'),
        ({'hflip': 2}, r'hflip must be a number in \[0, 1\]'),
        ({'std': [-1]}, r'std must be numbers, at least one of them, each in \[0.001, 1\], got \[-1\]'),
        ({'mean': [127.0]}, 'mean must be numbers'),
        ({'mean': 0.5}, 'mean must be numbers'),
        ({'mean': []}, 'mean must be numbers, at least one'),
        ({'input_size': [3, 64]}, 'input_size must be whole numbers, 3 of them'),
        ({'input_size': '364'}, 'input_size must be whole numbers, 3 of them'),
        ({'img_size': 0}, r'img_size must be a whole number in \[1, 8192\]'),
        ({'device': 0}, 'device must be text, got 0'),
        ({'recipe_kwargs': ['scope=layer']}, 'recipe_kwargs must be a mapping'),
        ({'model_kwargs': {1: 2}}, 'model_kwargs must be a mapping'),
        ({'opt': 'sdg'}, "opt must be an optimizer of timm, got 'sdg'; did you mean sgd"),
        ({'sched': 'plateau'}, 'sched must be one of cosine,'),
        ({'drop_path': 1.0}, 'drop_path must be a number'),
        ({'pretrained': True, 'initial_checkpoint': 'a'}, 'pretrained must be left out beside initial_checkpoint'),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_numbers_and_lists_come_in_one_form() -> None:
    config = TrainConfig(lr=1, epochs=np.int64(3), mean=(0, 1), opt='Lookahead_SGD')
    assert [type(value) for value in (config.lr, config.epochs, config.mean)] == [float, int, list]
    assert config == TrainConfig(lr=1.0, epochs=3, mean=[0.0, 1.0], opt='Lookahead_SGD')


def test_yaml_there_and_back(tmp_path: Path) -> None:
    config = TrainConfig(**{**SETTINGS, 'mean': [0.5], 'recipe_kwargs': {'scope': 'global'}, 'lr': 1e-4})
    write_config(config, tmp_path / 'args.yaml')
    assert TrainConfig(**read_config(tmp_path / 'args.yaml')) == config
    (tmp_path / 'hand.yaml').write_text('lr: 1e-4\nepochs: 3\n')
    assert read_config(tmp_path / 'hand.yaml') == {'lr': 1e-4, 'epochs': 3}


@pytest.mark.parametrize(
    'text, message',
    [
        ('epochs: 2.5', r"args\.yaml': epochs must be a whole number"),
        ('amp: "no"', "amp must be true or false, got 'no'"),
        ('lr: fast', "lr must be a number > 0, got 'fast'"),
        ('lr: .nan', 'lr must be a number > 0, got nan'),
        ('experiment: 2026-01-01', 'experiment must be text'),
        ('lr: [[[[[[[[1]]]]]]]]', r'lr must be a number > 0, got \[\[\[\[\.\.\.'),
        ('epoch: 1', 'did you mean epochs'),
        ('nonsense: 1', 'known are amp, '),
    ],
)
def test_settings_files_say_which_setting_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'args.yaml').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / 'args.yaml')


def test_settings_of_a_file_go_together_with_flags(tmp_path: Path) -> None:
    (tmp_path / 'args.yaml').write_text('warmup_epochs: 30')
    assert TrainConfig(**read_config(tmp_path / 'args.yaml'), epochs=60).warmup_epochs == 30


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
    for name in ('sfsc-paper', 'asymmetric-s', 'aggregation=', '(>= 1; 20)', '(in [0, 1); 0.9)', '(> 0)'):
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
