"""Whole models and single widths as folders: who can load them, that they embed alike, and that damage is seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    CONVNEXT,
    EFFICIENTNET,
    RESNET,
    SMALL_BOTTLENECK,
    WIDTHS,
    Member,
    assert_close_to,
    embed,
    images,
    predict,
)
from safetensors.torch import load_file, save_file

from sfsc_timm.checkpoints import compatibility_id, load_checkpoint_model, save_model, save_width, save_widths
from sfsc_timm.hub import load_width
from sfsc_timm.models import SlimmableResNet

CONFIG = {'input_size': (3, 64, 64), 'mean': (0.5, 0.4, 0.3), 'std': (0.25,) * 3, 'crop_pct': 1.0}
MEMBERS = (RESNET, SMALL_BOTTLENECK, CONVNEXT, EFFICIENTNET)
NAMES = ('resnet18d', 'resnet50', 'convnext_atto', 'efficientnet_b0')


@pytest.fixture(scope='module', params=MEMBERS, ids=NAMES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, Any, Path]:
    """A model and the folder in which it lies, whole and in widths."""
    torch.set_num_threads(1)  # this comes before the fixture that does so for every test
    torch.manual_seed(0)
    model, root = request.param.create(embed_dim=24), tmp_path_factory.mktemp('saved')
    save_model(model, root / 'whole', data_config=CONFIG, license='apache-2.0')
    save_widths(model, root / 'widths', data_config=CONFIG, allow_plugin=True)
    return request.param, model, root


def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / 'config.json').read_text())


def classifier_of(model: Any) -> str:
    """Name of the layer that timm replaces by reset_classifier."""
    return next(name for name, module in model.named_modules() if module is model.get_classifier())


def test_every_width_by_timm(saved: tuple[Member, Any, Path]) -> None:
    """max|a-b| <= 1e-5 max|b|, on other images than those it was compared on when it was saved."""
    member, model, root = saved
    x = images(size=64)
    for width in WIDTHS:
        folder = root / 'widths' / f'w{width:g}'
        model.set_width(width)
        loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        assert_close_to(predict(loaded, x), embed(model, x))
        settings = config(folder)
        by_timm_alone = member is not EFFICIENTNET
        assert settings['architecture'] == (member.plain_name if by_timm_alone else member.name)
        layer = settings['sfsc']['embedding']
        assert layer == (classifier_of(loaded) if by_timm_alone else 'neck')
        assert sum(p.numel() for p in loaded.parameters()) <= sum(p.numel() for p in model.parameters())
        assert settings['pretrained_cfg']['tag'] == f'w{width:g}'
        # once, where timm looks; transformers passes model_args on beside it
        assert 'num_classes' not in settings['model_args']
        assert settings['num_classes'] == settings['pretrained_cfg']['num_classes'] == (24 if by_timm_alone else 0)


@pytest.mark.parametrize('num_classes', [0, 7])
def test_another_number_of_classes_never_gives_features_of_another_space(
    saved: tuple[Member, Any, Path], num_classes: int
) -> None:
    """timm's habit num_classes=0 gives the embedding where the neck is a layer of its own, and fails elsewhere."""
    member, model, root = saved
    name, x = f'local-dir:{root}/widths/w0.5', images(size=64)
    if member is EFFICIENTNET:  # its neck is not in the place of the classifier
        model.set_width(0.5)
        loaded = timm.create_model(name, pretrained=True, num_classes=num_classes).eval()
        assert_close_to(embed(loaded, x), embed(model, x))
        return
    with pytest.raises(RuntimeError, match=r'(?s)loading state_dict.*(fc|Unexpected)'):
        timm.create_model(name, pretrained=True, num_classes=num_classes)
    loaded = timm.create_model(name, pretrained=True)
    loaded.reset_classifier(7)  # another task, after loading
    assert predict(loaded.eval(), x).shape == (2, 7)
    with pytest.raises(ValueError, match='num_classes must be left out, got 0'):
        load_width(root / 'widths', 0.5, num_classes=0)


def test_the_whole_model(saved: tuple[Member, Any, Path]) -> None:
    _, model, root = saved
    x = images(size=64)
    loaded: Any = timm.create_model(f'local-dir:{root}/whole', pretrained=True).eval()
    assert (type(loaded), loaded.widths, loaded.embed_dim) == (type(model), model.widths, 24)
    for width in WIDTHS:
        with model.at_width(width), loaded.at_width(width):
            assert torch.equal(predict(loaded, x), predict(model, x))
    settings = config(root / 'whole')
    assert settings['model_args']['widths'] == list(WIDTHS)
    assert settings['sfsc']['compatibility'] == compatibility_id(model)
    cfg = settings['pretrained_cfg']
    assert (cfg['license'], cfg['tag'], cfg['origin_url']) == ('apache-2.0', 'sfsc', None)  # not those of ImageNet's
    assert (cfg['input_size'], cfg['mean']) == ([3, 64, 64], [0.5, 0.4, 0.3])


def test_load_width_and_checkpoints_from_folders(saved: tuple[Member, Any, Path]) -> None:
    _, model, root = saved
    x = images(size=64)
    for width in (0.25, 1.0):
        model.set_width(width)
        for source in (root / 'whole', f'local-dir:{root}/widths', root / 'widths' / f'w{width:g}'):
            assert_close_to(predict(load_width(source, width), x), embed(model, x))
    together = load_checkpoint_model(root / 'widths')
    assert together.widths == WIDTHS
    assert together.compatibility == compatibility_id(model)
    with together.model.at_width(0.25), model.at_width(0.25):
        assert_close_to(embed(together.model, x), embed(model, x))
    alone = load_checkpoint_model(root / 'widths' / 'w0.25')
    assert alone.widths == (0.25,)
    assert alone.preprocessing.input_size == (3, 64, 64)
    for source in (root / 'whole', root / 'widths'):
        with pytest.raises(ValueError, match=r'width must be one of \(0\.25, 0\.5, 0\.75, 1\.0\), got 0\.3'):
            load_width(source, 0.3)


def test_without_leave_the_plugins_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'plain timm cannot express an EfficientNet at width 0\.5'):
        save_width(EFFICIENTNET.create(), 0.5, tmp_path / 'w0.5')
    assert not list(tmp_path.iterdir())


def test_what_is_replaced_and_what_is_left_behind(tmp_path: Path) -> None:
    model = RESNET.create()
    folder = save_model(model, tmp_path / 'whole')
    (folder / 'old').touch()
    save_model(model, folder)
    assert sorted(path.name for path in folder.iterdir()) == ['config.json', 'model.safetensors']
    assert [path.name for path in tmp_path.iterdir()] == ['whole']
    with pytest.raises(ValueError, match=r'model must be made by timm\.create_model'):
        save_model(SlimmableResNet.build(block=timm.models.resnet.BasicBlock, layers=(1, 1, 1, 1)), tmp_path / 'none')


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda weights, state: weights.write_bytes(weights.read_bytes()[:-9]), 'no whole safetensors file'),
        (lambda weights, state: weights.write_bytes(b'version https://git-lfs'), 'no whole safetensors file'),
        (lambda weights, state: save_file({**state, 'more': torch.ones(1)}, weights), '1 unknown: more'),
        (lambda weights, state: save_file(dict(list(state.items())[1:]), weights), '1 missing'),
        (
            lambda weights, state: save_file({k: v[..., :1].clone() for k, v in state.items() if v.ndim}, weights),
            'shape',
        ),
        (lambda weights, state: weights.unlink(), 'none of model.safetensors'),
        (lambda weights, state: weights.with_name('config.json').write_text('{'), r'no config of .*; restore it'),
    ],
)
def test_damage(tmp_path: Path, change: Any, message: str) -> None:
    model = RESNET.create()
    for folder in (save_model(model, tmp_path / 'whole'), save_width(model, 0.25, tmp_path / 'w0.25')):
        copy = tmp_path / 'copy'
        shutil.copytree(folder, copy)
        weights = copy / 'model.safetensors'
        change(weights, load_file(weights))
        for load in (load_checkpoint_model, lambda source: load_width(source, 0.25)):
            with pytest.raises((ValueError, FileNotFoundError), match=message):
                load(copy)
        shutil.rmtree(copy)
