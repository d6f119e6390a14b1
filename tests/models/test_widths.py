"""Sets of widths, rounding, and switching through everything that wraps a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.zoo import (
    CONVOLUTIONAL,
    FAMILIES,
    RESNET,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    channels_of,
    images,
    name_of,
    predict,
    rounded,
)
from timm.utils import ModelEmaV3
from torch import nn

import sfsc_timm
from sfsc_timm.models import check_widths, scale_channels

BAD_WIDTHS = [
    (),
    (0.25, 0.5),
    (0.0, 1.0),
    (-0.5, 1.0),
    (0.5, 1.5),
    (0.5, 1.0, 1.5),
    (1.0, 1.0),
    (0.5, 0.5, 1.0),
    (0.3333333, 0.3333334, 1.0),  # both would be saved as w0.333333
    (0.9999999, 1.0),
    (math.nan, 1.0),
    (0.5, math.nan, 1.0),
    (math.inf, 1.0),
    (0.5, None, 1.0),
    ('half', 1.0),
    1.0,
    None,
    'small',
]


@pytest.mark.parametrize('widths', BAD_WIDTHS, ids=repr)
def test_bad_sets_of_widths_are_refused(widths: Any) -> None:
    with pytest.raises(ValueError, match=r'^widths must be .*allowed is any set of different numbers in \(0, 1\]') as e:
        check_widths(widths)
    assert repr(widths) in str(e.value)


def test_bad_widths_are_refused_at_creation() -> None:
    with pytest.raises(ValueError, match='widths must be'):
        timm.create_model('sfsc_resnet18d', widths=(0.5, 0.75))


@pytest.mark.parametrize(
    'widths, expected',
    [
        ((0.3, 0.6, 1.0), (0.3, 0.6, 1.0)),
        ([1, 0.5], (0.5, 1.0)),
        ((1.0,), (1.0,)),
        (np.array([0.25, 1.0]), (0.25, 1.0)),
        (torch.tensor([0.5, 1.0]), (0.5, 1.0)),
        ({0.5, 1.0}, (0.5, 1.0)),
    ],
    ids=repr,
)
def test_good_sets_of_widths_are_sorted_floats(widths: Any, expected: tuple[float, ...]) -> None:
    checked = check_widths(widths)
    assert checked == expected
    assert all(type(w) is float for w in checked)


@pytest.mark.parametrize(
    'channels, width, expected',
    [(64, 0.25, 16), (64, 0.3, 24), (80, 0.25, 24), (40, 0.5, 24), (16, 0.1, 8), (6, 0.5, 6), (13, 1.0, 13)],
)
def test_rounding_rule(channels: int, width: float, expected: int) -> None:
    assert scale_channels(channels, width) == rounded(channels, width) == expected


def test_rounding_loses_at_most_a_tenth_and_never_shrinks_with_the_width() -> None:
    widths = [w / 100 for w in range(1, 101)]
    for channels in range(1, 200):
        sizes = [scale_channels(channels, w) for w in widths]
        assert sizes == [rounded(channels, w) for w in widths]
        assert sizes == sorted(sizes)
        assert all(0.9 * channels * w <= size <= channels for size, w in zip(sizes, widths, strict=True))


@pytest.mark.parametrize('width', [0.3, 0, 2, -1.0, math.nan, 'wide', (0.5,)], ids=repr)
def test_an_unknown_width_lists_the_known_ones(width: Any) -> None:
    model = RESNET.create()
    for switch in (
        lambda: model.set_width(width),
        lambda: sfsc_timm.set_width(model, width),
        lambda: model.at_width(width).__enter__(),
        lambda: model.extract(width),
        lambda: RESNET.create(width=width),
    ):
        with pytest.raises(ValueError, match=r'width must be one of \(0\.25, 0\.5, 0\.75, 1\.0\), got'):
            switch()
    assert model.width == 1.0


def test_a_width_may_be_any_number_that_equals_it() -> None:
    model = RESNET.create()
    for width in (np.float64(0.25), np.float32(0.5), 1, 0.1 + 0.65):
        model.set_width(width)
        assert model.width == pytest.approx(float(width))
        assert type(model.width) is float


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_width_at_creation(member: Member) -> None:
    model = member.create(width=0.5)
    assert model.width == sfsc_timm.get_width(model) == 0.5
    assert sfsc_timm.get_widths(model) == model.widths == WIDTHS
    x = images()
    narrow = predict(model, x)
    assert model.num_features == channels_of(model.forward_features(x))
    model.set_width(1.0)
    assert_far_from(predict(model, x), narrow)
    model.set_width(0.5)
    assert_close_to(predict(model, x), narrow)


def test_at_width_goes_back() -> None:
    model = RESNET.create(width=0.5)
    with model.at_width(0.25) as same:
        assert same is model
        assert (model.width, model.num_features) == (0.25, 32)
        with sfsc_timm.at_width(model, 1.0):
            assert (model.width, model.num_features) == (1.0, 128)
        assert model.width == 0.25
    assert (model.width, model.num_features) == (0.5, 64)
    with pytest.raises(KeyError), model.at_width(0.25):
        raise KeyError
    assert (model.width, model.num_features) == (0.5, 64)
    with pytest.raises(ValueError, match='width must be one of'), model.at_width(0.3):
        pass
    assert model.width == 0.5


def test_what_is_not_slimmable_is_refused() -> None:
    for function in (sfsc_timm.get_width, sfsc_timm.get_widths, lambda m: sfsc_timm.set_width(m, 0.5)):
        with pytest.raises(ValueError, match=r'must be or contain a slimmable model, got ResNet'):
            function(timm.create_model('resnet18', device='meta'))


def test_models_in_one_module_switch_together_if_they_agree() -> None:
    pair = nn.ModuleList([RESNET.create(), RESNET.create()])
    with sfsc_timm.at_width(pair, 0.25):
        assert [m.width for m in pair] == [0.25, 0.25]  # type: ignore[union-attr]
    pair[0].set_width(0.5)  # type: ignore[operator]
    with pytest.raises(ValueError, match='agree on their width'), sfsc_timm.at_width(pair, 0.25):
        pass
    others = nn.ModuleList([RESNET.create(widths=(0.5, 1.0)), RESNET.create()])
    with pytest.raises(ValueError, match='agree on their width'):
        sfsc_timm.set_width(others, 1.0)
    assert [m.width for m in others] == [1.0, 1.0]  # type: ignore[union-attr]


@pytest.mark.parametrize('member', CONVOLUTIONAL, ids=name_of)
def test_features_only_follows(member: Member) -> None:
    model, x = member.create(), images(size=64)
    features: Any = timm.create_model(member.name, features_only=True, width=0.5, **member.kwargs).eval()
    assert sfsc_timm.get_width(features) == 0.5
    for ours, theirs in zip(features.state_dict().values(), model.state_dict().values(), strict=False):
        ours.copy_(theirs)
    for width in (0.5, *WIDTHS):
        sfsc_timm.set_width(features, width)
        model.set_width(width)
        maps, expected = predict(features, x), model.forward_intermediates(x, intermediates_only=True)
        assert [m.shape[1] for m in maps] == features.feature_info.channels()  # type: ignore[attr-defined]
        for ours, theirs in zip(maps, expected, strict=True):
            assert_close_to(ours, theirs.detach())


def test_features_only_of_some_stages() -> None:
    features: Any = timm.create_model(RESNET.name, features_only=True, out_indices=(1, 3), **RESNET.kwargs).eval()
    with sfsc_timm.at_width(features, 0.25):
        assert features.feature_info.channels() == [m.shape[1] for m in predict(features, images())] == [8, 16]
    assert features.feature_info.channels() == [16, 64]


def wrappers() -> dict[str, Any]:
    return {
        'ema': ModelEmaV3,
        'nested': lambda m: nn.Sequential(nn.Identity(), nn.Sequential(m)),
        'ddp': nn.parallel.DistributedDataParallel,
    }


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('wrapper', wrappers())
def test_set_width_reaches_through(member: Member, wrapper: str, gloo: None) -> None:
    model, x = member.create(), images()
    wrapped = wrappers()[wrapper](model)
    for width in WIDTHS:
        model.set_width(width)
        expected = predict(model, x)
        model.set_width(1.0)
        sfsc_timm.set_width(wrapped, width)
        assert sfsc_timm.get_width(wrapped) == width
        assert_close_to(predict(wrapped, x), expected)
        sfsc_timm.set_width(wrapped, 1.0)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_distributed_gradients_at_every_width(member: Member, gloo: None) -> None:
    model = member.create().train()
    ddp = nn.parallel.DistributedDataParallel(model)
    x = images(batch=4)
    for width in WIDTHS:
        sfsc_timm.set_width(ddp, width)
        model.zero_grad()
        model(x).square().sum().backward()
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        ddp(x).square().sum().backward()
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_a_warning_when_one_width_is_trained_alone(caplog: pytest.LogCaptureFixture) -> None:
    model, x = RESNET.create(width=0.5).train(), images()
    for _ in range(4):
        for width in model.widths:  # joint training
            model.set_width(width)
            model(x)
    assert not caplog.records
    model.set_width(0.5)
    with torch.no_grad():
        for _ in range(4):
            model(x)
    assert not caplog.records
    for _ in range(6):
        model(x)
    assert [record.message.split('.')[0] for record in caplog.records] == ['Only width 0']
    assert 'widths 0.25, 0.75, 1,' in caplog.records[0].message
    assert 'no longer be compatible' in caplog.records[0].message
