"""What cannot end well is refused before data are drawn, models built or folders made."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import timm
from helpers.trees import plant

import sfsc_timm.data
import sfsc_timm.training.build
from sfsc_timm.cli.main import main


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any reading of data is a failure."""

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail('data were read before the settings were checked')

    monkeypatch.setattr(sfsc_timm.data, 'load_data', fail)
    monkeypatch.setattr(sfsc_timm.training.build, 'load_data', fail)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--epochs', '0'], 'epochs must be'),
        (['--lr', '0'], 'lr must be'),
        (['--lr', 'nan'], 'lr must be'),
        (['--batch-size', '0'], 'batch-size must be'),
        (['--batch-size', '-4'], 'batch-size must be'),
        (['--img-size', '1'], 'img-size must be'),
        (['--img-size', '1000000'], 'img-size must be'),
        (['--seed', '-1'], 'seed must be'),
        (['--seed', '99999999999999999999'], 'seed must be'),
        (['--identities', '1'], 'identities must be'),
        (['--threads', '1000000'], 'threads must be'),
        (['--threads', '-1'], 'threads must be'),
        (['--data-dir', 'photos'], '--data-dir is for --data folder'),
        (['--data', 'folder'], '--data folder needs --data-dir'),
    ],
)
def test_quickstart(
    no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(['quickstart', '--output', str(tmp_path / 'out'), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


TINY = ['--data', 'glyphs', '--model', 'sfsc_resnet18d', '--img-size', '32']


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--model-kwargs', 'embed_dim=0'], 'embed_dim must be at least 1'),
        (['--model-kwargs', 'layers=[100000,100000,100000,100000]'], 'layers must be'),
        (['--model-kwargs', 'channels=[1000000,1,1,1]'], 'channels must be'),
        (['--model-kwargs', 'embed_dim=1000000000'], 'embed_dim must be'),
        (['--model-kwargs', 'stem_width=10000000'], 'stem_width must be'),
        (['--threads', '1000000'], 'threads must be'),
    ],
)
def test_train(
    no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    start = time.perf_counter()
    assert main(['train', *TINY, '--output', str(tmp_path / 'out'), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert time.perf_counter() - start < 8
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('command', ['train', 'quickstart'])
def test_one_identity_is_nothing_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    plant(tmp_path / 'photos', 'train/ann/1.jpg', 'train/ann/2.jpg', 'test/bob/1.jpg', 'test/bob/2.jpg')
    model = [] if command == 'quickstart' else ['--model', 'sfsc_resnet18d', '--device', 'cpu']
    arguments = ['--data', 'folder', '--data-dir', str(tmp_path / 'photos'), '--output', str(tmp_path / 'out'), *model]
    assert main([command, *arguments]) == 1
    assert 'photos: training needs images of at least 2 identities, got 1' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [
        {'layers': (100_000,) * 4},
        {'layers': 3},
        {'channels': (64, 128, 256, 10**9)},
        {'embed_dim': -5},
        {'embed_dim': 2.5},
        {'widths': tuple(i / 5000 for i in range(1, 5001))},
        {'num_classes': 10**12},
        {'in_chans': 10**7},
        {'channel_multiplier': 1e6},
        {'depth_multiplier': float('nan')},
    ],
)
def test_models_without_bounds_are_refused_at_once(arguments: dict[str, Any]) -> None:
    start = time.perf_counter()
    name = 'sfsc_efficientnet_b0' if 'multiplier' in next(iter(arguments)) else 'sfsc_resnet18d'
    with pytest.raises(ValueError, match=rf'{next(iter(arguments))} must be '):
        timm.create_model(name, **arguments)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--epochs', '9' * 30], 'epochs must be at most 1000000000000'),
        (['--torchcompile', 'no-such-backend'], 'torchcompile must be one of .*inductor'),
        (['--model-kwargs', 'checkpoint_path=/nope'], "checkpoint_path in model_kwargs must be.*'/nope'.*--initial"),
        (['--model-kwargs', 'output_stride=7'], "'output_stride': 7.*AssertionError; change model_kwargs"),
        (['--model-kwargs', 'norm_layer=nope'], "'norm_layer': 'nope'.*KeyError: 'nope'; change model_kwargs"),
        (['--model-kwargs', 'global_pool=nope'], "'global_pool': 'nope'.*Invalid pool type: nope; change"),
        (['--model-kwargs', 'channels=[8]'], 'channels must have a number for each of the 4 stages'),
        (['--model-kwargs', 'widths={[]:1}'], 'widths'),
        (['--model-kwargs', 'widths=' + '-' * 5000 + '1'], 'widths'),
    ],
)
def test_train_refuses_what_cannot_be_meant(
    no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(['train', *TINY, '--output', str(tmp_path / 'out'), *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
