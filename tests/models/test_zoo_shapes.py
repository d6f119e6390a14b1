"""What every registered model says of itself, checked against what it computes, on the meta device."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from helpers.zoo import WIDTHS, rounded

import sfsc_timm  # noqa: F401

NAMES = timm.list_models('sfsc_*')
FULL_WIDTH = {  # channels of the last feature map of timm's models
    'resnet18': 512,
    'resnet34': 512,
    'resnet50': 2048,
    'resnet101': 2048,
    'convnext_atto': 320,
    'convnext_femto': 384,
    'convnext_pico': 512,
    'convnext_nano': 640,
    'convnext_tiny': 768,
    'convnext_small': 768,
    'efficientnet_b0': 1280,
    'efficientnet_b1': 1280,
    'efficientnet_b2': 1408,
    'efficientnet_lite0': 1280,
    'efficientnet_lite1': 1280,
    'efficientnet_lite2': 1280,
    'mobilenetv3_small_100': 576,
    'mobilenetv3_large_100': 960,
    'mobilenetv4_conv_small': 960,
    'mobilenetv4_conv_medium': 960,
}


def test_the_promised_architectures_are_registered() -> None:
    resnets = {f'sfsc_resnet{depth}{stem}' for depth in (18, 34, 50, 101) for stem in ('', 'd')}
    assert resnets | {'sfsc_efficientnet_b0', 'sfsc_convnext_tiny'} <= set(NAMES)


def test_names_start_with_the_prefix() -> None:
    ours = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith('sfsc_timm.')}
    assert ours == set(NAMES)


# Transformers, whose widths are numbers of heads, are in test_vision_transformers.
@pytest.mark.parametrize('name', [name for name in NAMES if not name.startswith('sfsc_vit_')])
def test_every_width_tells_its_true_sizes(name: str) -> None:
    model = timm.create_model(name, num_classes=7, device='meta').eval()
    assert model.widths == WIDTHS
    assert model.width == 1.0
    x = torch.empty(2, 3, 64, 64, device='meta')
    full = FULL_WIDTH[re.sub(r'^sfsc_|(?<=\d)d$', '', name)]
    for width in WIDTHS:
        model.set_width(width)
        features, intermediates = model.forward_intermediates(x)
        assert model.width == width
        expansion = full // 512 if 'resnet' in name else 1
        assert features.shape[1] == model.num_features == expansion * rounded(full // expansion, width)
        assert [m.shape[1] for m in intermediates] == [info['num_chs'] for info in model.feature_info]
        assert [64 // m.shape[-1] for m in intermediates] == [info['reduction'] for info in model.feature_info]
        assert model.head_hidden_size == model.embed_dim == 256
        assert model.forward_head(features, pre_logits=True).shape == (2, 256)
        assert model.forward_head(features).shape == (2, 7)


@pytest.mark.parametrize('name', NAMES)
def test_warm_start_points_to_timms_own_weights(name: str) -> None:
    found = [tag for tag in timm.list_pretrained(f'{name}.*') if not tag.endswith('.sfsc_emoji')]
    assert found
    plain = name.replace('sfsc_', 'tf_' if 'lite' in name else '')  # the Lites' weights are TensorFlow's
    for cfg in map(timm.get_pretrained_cfg, found):
        assert cfg.hf_hub_id == f'timm/{plain}.{cfg.tag}'
        assert f'{plain}.{cfg.tag}' in timm.list_pretrained(f'{plain}.*')
        timms = timm.get_pretrained_cfg(f'{plain}.{cfg.tag}')
        for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'num_classes', 'first_conv', 'license'):
            assert getattr(cfg, key) == getattr(timms, key), key
        assert cfg.classifier == 'fc'
