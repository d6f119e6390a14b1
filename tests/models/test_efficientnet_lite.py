"""EfficientNet-Lite: timm's network at every width, with a fixed stem and a final convolution that slims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    WIDTHS,
    Member,
    assert_close_to,
    embed,
    images,
    neck_by_hand,
    predict,
    randomised,
    rounded,
    slice_by_hand,
)
from safetensors.torch import save_file
from timm.models.efficientnet import EfficientNet, _gen_efficientnet_lite
from torch import nn

import sfsc_timm  # noqa: F401

_TENSORFLOW = {'bn_eps': 1e-3, 'pad_type': 'same'}


def _narrow(width: float, **kwargs: Any) -> Any:
    """Timm's, with the final convolution replaced by hand."""
    multiplier = kwargs.pop('channel_multiplier', 1.0) * width
    model: Any = _gen_efficientnet_lite(
        'tf_efficientnet_lite0', channel_multiplier=multiplier, num_classes=0, **{**_TENSORFLOW, **kwargs}
    )
    channels = rounded(1280, width)
    model.conv_head = nn.Conv2d(model.conv_head.in_channels, channels, 1, bias=False)
    model.bn2 = type(model.bn2)(channels, eps=1e-3, act_layer=nn.ReLU6)
    return model


_SMALL = {'channel_multiplier': 0.5, 'depth_multiplier': 0.5}
SMALL = Member('sfsc_efficientnet_lite0', lambda width: _narrow(width, **_SMALL), _SMALL)
DEFAULT = Member('sfsc_efficientnet_lite0', _narrow)


@pytest.mark.parametrize('member', [SMALL, DEFAULT], ids=['small', 'default'])
def test_every_width_equals_timms_narrow_model(member: Member) -> None:
    model, x = member.create(), images(size=40)  # an odd size on the way, where TensorFlow's padding is one-sided
    state, twins = model.state_dict(), member.twins()
    for index, width in enumerate(WIDTHS):
        model.set_width(width)
        twins[index].load_state_dict(slice_by_hand(state, twins, index))
        assert_close_to(embed(model, x), neck_by_hand(state, predict(twins[index], x), index))
        assert model.num_features == rounded(1280, width)
        assert model.conv_stem.weight.shape[0] == 32


@pytest.mark.parametrize('size', [0, 1, 2])
def test_from_timms_weights_without_a_neck_the_logits_are_timms(size: int, tmp_path: Path) -> None:
    timms, x = randomised(timm.create_model(f'tf_efficientnet_lite{size}')).eval(), images(size=64)
    save_file(timms.state_dict(), tmp_path / 'model.safetensors')
    overlay = {'file': str(tmp_path / 'model.safetensors')}
    name = f'sfsc_efficientnet_lite{size}.in1k'
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, embed_dim=0).eval()
    assert torch.equal(predict(model, x), predict(timms, x))
    for width in WIDTHS:
        model.set_width(width)
        assert predict(model, x).shape == (2, 1000)


def test_parameters_of_the_backbone_at_each_width() -> None:
    """In millions; the shared head, 0.1 of them, apart."""
    model: Any = timm.create_model('sfsc_efficientnet_lite0', num_classes=0)
    counts = [sum(p.numel() for n, p in model.extract(w).named_parameters() if 'classifier' not in n) for w in WIDTHS]
    assert [round(count / 1e6, 2) for count in counts] == [0.28, 0.91, 2.0, 3.37]


@pytest.mark.parametrize('size', [0, 1, 2])
def test_plain_timm_takes_the_full_width(size: int) -> None:
    model: Any = randomised(timm.create_model(f'sfsc_efficientnet_lite{size}', num_classes=0)).eval()
    plain, x = model.extract(1.0, plain=True), images(size=64)
    assert type(plain) is EfficientNet
    assert_close_to(predict(plain, x), predict(model, x))


def test_plain_timm_cannot_express_a_narrow_width_and_the_error_names_the_ways_out() -> None:
    model: Any = timm.create_model('sfsc_efficientnet_lite0', num_classes=0)
    with pytest.raises(ValueError, match=r'at width 0\.25.*ONNX.*sfsc_timm is imported'):
        model.extract(0.25, plain=True)


def test_a_network_of_its_own_is_initialised_as_timms() -> None:
    """The replaced convolution gets timm's initial values for its own size."""
    lone = timm.create_model('sfsc_efficientnet_lite0', widths=(1.0,), full_width=0.25)
    weight = dict(lone.named_parameters())['conv_head.weight']
    assert weight.shape[0] == 320
    assert weight.std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    assert lone.train()(images(batch=4)).isfinite().all()


@pytest.mark.parametrize('width', [0.25, 1.0])
def test_torch_export(width: float, dynamo: None) -> None:
    model, x = SMALL.create(), images(size=40)
    model.set_width(width)
    assert_close_to(predict(torch.export.export(model, (x,)).module(), x), predict(model, x))
