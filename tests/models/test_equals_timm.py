"""Each width computes what timm's own narrow model computes, with weights cut out of the state_dict by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    BOTTLENECK,
    CONVNEXT,
    CONVNEXT_DEFAULT,
    DINOV2,
    DINOV3,
    EFFICIENTNET,
    EFFICIENTNET_DEFAULT,
    IDENTITY_SHORTCUT,
    MOBILENET,
    MOBILENETV4,
    RESNET,
    RESNET_DEFAULT,
    SKIPS_DIFFER,
    VIT,
    VIT_AVERAGE,
    VIT_MAP,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    embed,
    images,
    name_of,
    neck_by_hand,
    predict,
    rounded,
    slice_by_hand,
)
from torch import Tensor, nn

import sfsc_timm  # noqa: F401

MEMBERS = (
    RESNET,
    RESNET_DEFAULT,
    IDENTITY_SHORTCUT,
    BOTTLENECK,
    CONVNEXT,
    CONVNEXT_DEFAULT,
    EFFICIENTNET,
    EFFICIENTNET_DEFAULT,
    SKIPS_DIFFER,
    MOBILENET,
    MOBILENETV4,
    VIT,
    VIT_AVERAGE,
    VIT_MAP,
    DINOV2,
    DINOV3,
)


def assert_equals_narrow_models(model: Any, twins: Sequence[nn.Module], x: Tensor) -> None:
    state = model.state_dict()
    outputs = []
    for index, (width, twin) in enumerate(zip(model.widths, twins, strict=True)):
        twin.load_state_dict(slice_by_hand(state, twins, index))
        expected = neck_by_hand(state, predict(twin, x), index)
        model.set_width(width)
        for _ in range(2):  # the first forward after a switch copies the weights, the second uses the copies
            assert_close_to(embed(model, x), expected)
            assert_close_to(predict(model, x), expected @ state['fc.weight'].T + state['fc.bias'])
        outputs.append(expected)
    for narrow, wide in pairwise(outputs):
        assert_far_from(narrow, wide)


@pytest.mark.parametrize('member', MEMBERS, ids=name_of)
def test_every_width_equals_timms_narrow_model(member: Member) -> None:
    assert_equals_narrow_models(member.create(), member.twins(), images())


@pytest.mark.parametrize('member', [RESNET_DEFAULT, CONVNEXT_DEFAULT, EFFICIENTNET], ids=name_of)
@pytest.mark.parametrize('widths', [(0.3, 0.6, 1.0), (0.1, 1.0), (1.0,)], ids=str)
def test_any_set_of_widths(member: Member, widths: tuple[float, ...]) -> None:
    model = member.create(widths=widths)
    assert model.widths == widths
    assert_equals_narrow_models(model, member.twins(widths), images())


@pytest.mark.parametrize('member', [IDENTITY_SHORTCUT, BOTTLENECK], ids=name_of)
def test_plain_stem_equals_timms_64_wide_one_with_zeros(member: Member) -> None:
    """The same check with nothing but timm's constructor: its stem has 64 channels, the unused ones are 0."""
    model, x, width = member.create(), images(), 0.5
    channels = tuple(rounded(c, width) for c in (64, 128, 256, 512))
    timms: Any = timm.create_model(member.plain_name, channels=channels, num_classes=0).eval()
    if member is IDENTITY_SHORTCUT:
        timms.layer1[0].downsample = None
    twins = member.twins()
    sliced = slice_by_hand(model.state_dict(), twins, WIDTHS.index(width))
    padded = {key: torch.zeros_like(tensor) for key, tensor in timms.state_dict().items()}
    for key, tensor in sliced.items():
        padded[key][tuple(slice(0, n) for n in tensor.shape)] = tensor
    timms.load_state_dict(padded)
    if member is IDENTITY_SHORTCUT:  # the block's output then is 64 wide as well, so compare the stem's half
        timms.layer1[0].downsample = nn.Conv2d(64, channels[0], 1, bias=False)
        with torch.no_grad():
            timms.layer1[0].downsample.weight.copy_(torch.eye(channels[0], 64)[:, :, None, None])
    model.set_width(width)
    expected = neck_by_hand(model.state_dict(), predict(timms, x), WIDTHS.index(width))
    assert_close_to(embed(model, x), expected)


def test_channels_last_and_batch_of_one() -> None:
    model = RESNET.create().to(memory_format=torch.channels_last)
    twins = RESNET.twins()
    assert_equals_narrow_models(model, twins, images(batch=1, size=64).to(memory_format=torch.channels_last))


@pytest.mark.parametrize('member', [RESNET, CONVNEXT, VIT], ids=name_of)
def test_training_equals_the_narrow_models_training(member: Member) -> None:
    """Batch statistics, and the gradient of every slice in float64, 0 outside of it."""
    model = member.create().double().train()
    twins = [member.narrow(w).double().train() for w in WIDTHS]
    x = images(batch=4).double()
    for index, width in enumerate(WIDTHS):
        twin: Any = twins[index]
        twin.load_state_dict(slice_by_hand(model.state_dict(), twins, index))
        model.set_width(width)
        model.zero_grad(set_to_none=True)
        features, expected = model.forward_features(x), twin.forward_features(x)
        assert_close_to(features, expected, 1e-10)
        target = torch.randn_like(expected)
        (features * target).sum().backward()
        (expected * target).sum().backward()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        sliced = slice_by_hand({k: gradients.get(k, v) for k, v in model.state_dict().items()}, twins, index)
        for key, parameter in twin.named_parameters():
            if parameter.grad is None:  # ConvNeXt's head norm
                assert key not in gradients
                continue
            assert_close_to(sliced[key], parameter.grad, 1e-9)
            total = gradients[key].abs().sum()
            torch.testing.assert_close(total, parameter.grad.abs().sum(), msg=f'{key} has a gradient outside the slice')
        if index:
            buffers = slice_by_hand(model.state_dict(), twins, index)
            for key, buffer in twin.named_buffers():
                torch.testing.assert_close(buffers[key], buffer)
