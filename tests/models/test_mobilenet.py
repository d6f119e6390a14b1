"""MobileNets: timm's networks at every width, with a fixed stem and a final convolution that slims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import MOBILENET, MOBILENETV4, Member, assert_close_to, embed, images, name_of, predict, randomised
from safetensors.torch import save_file
from timm.models.mobilenetv3 import MobileNetV3

from sfsc_timm.checkpoints import save_width

BOTH = pytest.mark.parametrize('member', [MOBILENET, MOBILENETV4], ids=name_of)


@pytest.mark.parametrize(
    'name',
    [
        'mobilenetv3_small_100.lamb_in1k',
        pytest.param('mobilenetv3_large_100.ra_in1k', marks=pytest.mark.slow),
        'mobilenetv4_conv_small.e2400_r224_in1k',
        pytest.param('mobilenetv4_conv_medium.e500_r224_in1k', marks=pytest.mark.slow),
    ],
)
def test_from_timms_weights_without_a_neck_the_logits_are_timms(name: str, tmp_path: Path) -> None:
    timms, x = randomised(timm.create_model(name)).eval(), images(size=64)
    save_file(timms.state_dict(), tmp_path / 'model.safetensors')
    overlay = {'file': str(tmp_path / 'model.safetensors')}
    model: Any = timm.create_model(f'sfsc_{name}', pretrained=True, pretrained_cfg_overlay=overlay, embed_dim=0).eval()
    assert_close_to(predict(model, x), predict(timms, x))
    assert_close_to(predict(model.extract(1.0, head=True), x), predict(timms, x))
    model.set_width(0.25)
    assert predict(model, x).shape == (2, 1000)


@BOTH
def test_the_final_convolution_slims_and_the_stem_stays(member: Member) -> None:
    model = member.create(embed_dim=0, num_classes=0)
    full = model.conv_head.out_channels
    stem = model.conv_stem.out_channels
    for width in (0.25, 0.5, 1.0):
        model.set_width(width)
        assert model.conv_head.out_channels == model.head_hidden_size == full * width
        assert model.conv_stem.out_channels == stem
        assert predict(model, images()).shape == (2, full * width)


@BOTH
def test_a_narrow_width_is_saved_for_who_imports_the_plugin(member: Member, tmp_path: Path) -> None:
    model, x = member.create(embed_dim=24, num_classes=0), images()
    with pytest.raises(ValueError, match=r'cannot express a MobileNet at width 0\.5.*ONNX.*sfsc_timm is imported'):
        save_width(model, 0.5, tmp_path / 'plain')
    folder = save_width(model, 0.5, tmp_path / 'own', allow_plugin=True)
    loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    model.set_width(0.5)
    assert_close_to(predict(loaded, x), embed(model, x))


def test_plain_timm_takes_the_full_width() -> None:
    model: Any = randomised(timm.create_model('sfsc_mobilenetv4_conv_small', num_classes=0)).eval()
    plain, x = model.extract(1.0, plain=True), images(size=64)
    assert type(plain) is MobileNetV3
    assert_close_to(predict(plain, x), predict(model, x))


def test_a_network_of_its_own_is_initialised_as_timms() -> None:
    lone = timm.create_model('sfsc_mobilenetv3_small_100', widths=(1.0,), full_width=0.25)
    weight = dict(lone.named_parameters())['conv_head.weight']
    assert weight.shape == (256, 144, 1, 1)
    assert weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert lone.train()(images(batch=4)).isfinite().all()


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize('width', [0.25, 1.0])
def test_torch_export(member: Member, width: float, dynamo: None) -> None:
    model, x = member.create(), images()
    model.set_width(width)
    assert_close_to(predict(torch.export.export(model, (x,)).module(), x), predict(model, x))


@pytest.mark.slow
@BOTH
def test_recomputation_gives_the_same_gradients(member: Member) -> None:
    model, x = member.create().double(), images().double()
    model.set_width(0.5)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing()
    model(x).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
