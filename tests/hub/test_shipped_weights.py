"""`pretrained=True` from weights that ship with the package, where an installed package has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import RESNET, assert_close_to, images, randomised
from safetensors.torch import load_file

import sfsc_timm
from sfsc_timm.checkpoints import compatibility_id, save_model, save_width
from sfsc_timm.hub import About, ship
from sfsc_timm.models import _shipped
from sfsc_timm.models._shipped import with_shipped

NAME = 'sfsc_convnext_atto.sfsc_test'
CONFIG = {'input_size': (3, 64, 64), 'mean': (0.5, 0.4, 0.3), 'std': (0.25,) * 3, 'crop_pct': 1.0}
BASE = {'sfsc_convnext_atto.d2_in1k': {'first_conv': 'stem.0', 'classifier': 'fc', 'hf_hub_id': 'timm/x'}}


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as pip makes it, with a shipped checkpoint; and the model that was shipped."""
    torch.set_num_threads(1)  # this comes before the fixture that does so for every test
    torch.manual_seed(0)
    site, scratch = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('scratch')
    package = site / 'sfsc_timm'
    shutil.copytree(Path(sfsc_timm.__file__).parent, package, ignore=shutil.ignore_patterns('__pycache__', 'weights'))
    (package / 'weights').mkdir()
    model: Any = randomised(timm.create_model('sfsc_convnext_atto', num_classes=7)).eval()
    about = About(license='apache-2.0', data='noise')
    ship(save_model(model, scratch / 'whole', data_config=CONFIG), 'sfsc_test', folder=package / 'weights', about=about)
    return site, model


SCRIPT = f"""
import json, logging, os, sys, timm, torch
import sfsc_timm
assert sfsc_timm.__file__.startswith({{site!r}}), sfsc_timm.__file__
listed = timm.list_pretrained('sfsc_convnext_atto*')
images, found = torch.load({{images!r}}), {{{{}}}}
model = timm.create_model('sfsc_convnext_atto', pretrained=True).eval()
assert model.num_classes == 0 and model.embed_dim == 256
config = timm.data.resolve_model_data_config(model)
with torch.no_grad():
    for width in model.widths:
        model.set_width(width)
        found[width] = model(images).tolist()
    by_tag = timm.create_model('{NAME}', pretrained=True, width=0.25).eval()
    assert by_tag(images).tolist() == found[0.25]
    grey = timm.create_model('sfsc_convnext_atto', pretrained=True, in_chans=1, num_classes=5).eval()
    assert grey(images[:, :1]).shape == (2, 5)
    maps = timm.create_model('sfsc_convnext_atto', pretrained=True, features_only=True).eval()(images)
    assert len(maps) == 4
    plain = timm.create_model('sfsc_convnext_atto', pretrained=True, embed_dim=0, num_classes=3).eval()
    assert torch.equal(plain.forward_features(images), model.forward_features(images))
try:
    timm.create_model('sfsc_convnext_atto', pretrained=True, widths=(0.5, 1.0))
except ValueError as error:
    refused = str(error)
from sfsc_timm.hub import compatibility_id, load_checkpoint_model
checkpoint = load_checkpoint_model('sfsc_convnext_atto')
print(json.dumps([listed, found, config, refused, checkpoint.compatibility, checkpoint.preprocessing.input_size]))
"""


def test_the_bare_call_gives_the_embedding_offline(installed: tuple[Path, Any], tmp_path: Path) -> None:
    site, model = installed
    x = images(size=64)
    torch.save(x, tmp_path / 'images.pt')
    code = SCRIPT.format(site=str(site), images=str(tmp_path / 'images.pt'))
    environment = {'PYTHONPATH': str(site), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'PATH': '/usr/bin'}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    listed, found, config, refused, identity, input_size = json.loads(done.stdout)
    assert listed == ['sfsc_convnext_atto.d2_in1k', NAME]
    for width in model.widths:
        with model.at_width(width), torch.no_grad():
            expected = model.forward_head(model.forward_features(x), pre_logits=True)
        assert_close_to(torch.tensor(found[str(width)]), expected, 5e-3)  # half precision
    assert (config['input_size'], config['mean'], config['crop_pct']) == ([3, 64, 64], [0.5, 0.4, 0.3], 1.0)
    assert 'other widths or sizes than this one (widths=(0.5, 1.0), embed_dim=256)' in refused
    assert input_size == [3, 64, 64]
    manifest = json.loads((site / 'sfsc_timm' / 'weights' / 'manifest.json').read_text())
    assert manifest[NAME]['compatibility'] == identity


def test_what_is_written(installed: tuple[Path, Any]) -> None:
    site, model = installed
    folder = site / 'sfsc_timm' / 'weights'
    entry = json.loads((folder / 'manifest.json').read_text())[NAME]
    state = load_file(folder / entry['file'])
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert not any(key.startswith('fc.') for key in state)
    assert (folder / entry['file']).stat().st_mode & 0o777 == 0o644  # readable wherever it gets installed
    assert entry['bytes'] == (folder / entry['file']).stat().st_size < 8_000_000
    assert entry['pretrained_cfg']['pool_size'] == [2, 2]
    assert compatibility_id(model) != entry['compatibility']  # the weights are rounded
    card = (folder / f'{NAME}.md').read_text()
    assert "timm.create_model('sfsc_convnext_atto', pretrained=True)" in card
    assert 'start from `sfsc_convnext_atto.d2_in1k` and train all widths' in card
    assert 'Data: noise (terms: see its own).' in card
    assert f'compatibility id `{entry["compatibility"]}`' in card
    assert '| 0.25 (φ1/16) | `convnext_atto` |' in card


def test_only_what_is_there_is_listed(installed: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / 'weights'
    shutil.copytree(installed[0] / 'sfsc_timm' / 'weights', folder)
    found = with_shipped(BASE, folder)
    assert list(found) == [NAME, *BASE]  # in front, so the default
    assert found[NAME]['file'] == str(folder / f'{NAME}.safetensors')
    assert (found[NAME]['first_conv'], found[NAME]['input_size']) == ('stem.0', (3, 64, 64))
    assert 'hf_hub_id' not in found[NAME]
    assert with_shipped({'sfsc_resnet50.a1_in1k': {}}, folder) == {'sfsc_resnet50.a1_in1k': {}}
    weights = folder / f'{NAME}.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1])
    assert with_shipped(BASE, folder) == BASE
    weights.unlink()
    assert with_shipped(BASE, folder) == BASE
    (folder / 'manifest.json').unlink()
    assert with_shipped(BASE, folder) == BASE


def test_warm_starts_are_those_that_timm_has_on_the_hub() -> None:
    for name in timm.list_pretrained('sfsc_*'):
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
        if cfg.file:
            assert Path(cfg.file).is_file()
        else:
            plain = name.removeprefix('sfsc_')
            if 'efficientnet_lite' in plain:  # whose weights are TensorFlow's
                plain = f'tf_{plain}'
            assert (
                cfg.hf_hub_id == timm.get_pretrained_cfg(plain, allow_unregistered=False).hf_hub_id == f'timm/{plain}'
            )


def test_what_ships_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = RESNET.create(num_classes=0), tmp_path / 'weights'
    folder.mkdir()
    with pytest.raises(ValueError, match='does not fit the model sfsc_resnet18d'):  # not the default arguments
        ship(save_model(model, tmp_path / 'small', data_config=CONFIG), 'test', folder=folder)
    with pytest.raises(ValueError, match='must hold a whole slimmable model'):
        ship(save_width(model, 0.5, tmp_path / 'w0.5'), 'test', folder=folder)
    pooled: Any = timm.create_model('sfsc_convnext_atto', num_classes=0, global_pool='max')
    with pytest.raises(ValueError, match=r'embeds differently by .*: the checkpoint was made with other than the def'):
        ship(save_model(pooled, tmp_path / 'pooled', data_config=CONFIG), 'test', folder=folder)
    whole: Any = timm.create_model('sfsc_convnext_atto', num_classes=0)
    large = save_model(whole, tmp_path / 'large', data_config=CONFIG)
    monkeypatch.setattr(sys.modules['sfsc_timm.hub.ship'], '_FILE_LIMIT', 1_000_000)
    with pytest.raises(ValueError, match=r'takes 6\.9 MB and all weights 6\.9 MB, allowed are 1 and 100 MB'):
        ship(large, 'test', folder=folder)
    with torch.no_grad():
        whole.stem[0].bias[0] = 1e6
    with pytest.raises(ValueError, match=r'stem\.0\.bias is too large for half precision'):
        ship(save_model(whole, tmp_path / 'huge', data_config=CONFIG), 'test', folder=folder)
    assert not list(folder.iterdir())


def test_the_folder_is_found_in_a_checkout_and_in_an_installed_package() -> None:
    package = Path(sfsc_timm.__file__).parent
    installed = package / 'weights'
    folder = _shipped.weights_folder()
    assert folder == (installed if installed.is_dir() else package.parent / 'weights')
    assert (folder / '__init__.py').is_file()
