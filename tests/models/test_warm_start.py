"""`pretrained=True` from weights that timm's own model made, and what our own checkpoints do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    FAMILIES,
    IDENTITY_SHORTCUT,
    RESNET,
    WIDTHS,
    Member,
    assert_close_to,
    embed,
    images,
    leading,
    name_of,
    predict,
    randomised,
)
from safetensors.torch import save_file
from torch import Tensor, nn

import sfsc_timm  # noqa: F401
from sfsc_timm.models._factory import checkpoint_filter_fn


def timms_own(member: Member, **kwargs: Any) -> Any:
    """Timm's full model with weights that stand for pretrained ones."""
    args = {**member.kwargs, 'num_classes': 10, **kwargs}
    if 'efficientnet' in member.name:  # the name fixes timm's multipliers
        from timm.models.efficientnet import _gen_efficientnet

        return randomised(_gen_efficientnet('efficientnet_b0', **args)).eval()
    if 'head_size' in args:
        args['embed_dim'] = args.pop('head_size') * args['num_heads']
    return randomised(timm.create_model(member.plain_name, **args)).eval()


@pytest.fixture(scope='module', params=[*FAMILIES, IDENTITY_SHORTCUT], ids=name_of)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, Any, str]:
    """A member, timm's model, and the file of its weights."""
    torch.manual_seed(0)
    model, file = timms_own(request.param), tmp_path_factory.mktemp('weights') / 'model.safetensors'
    save_file(model.state_dict(), file)
    return request.param, model, str(file)


def warm_start(member: Member, file: str, num_classes: int = 10, **kwargs: Any) -> Any:
    """A member from a file that stands for the Hub."""
    overlay = {'file': file, 'num_classes': 10}
    args = {**member.kwargs, 'num_classes': num_classes, **kwargs}
    return timm.create_model(member.name, pretrained=True, pretrained_cfg_overlay=overlay, **args).eval()


def test_without_a_neck_full_width_is_timms_model(published: tuple[Member, Any, str]) -> None:
    member, timms, file = published
    x = images()
    model = warm_start(member, file, embed_dim=0)
    assert_close_to(predict(model, x), predict(timms, x))
    assert_close_to(predict(model.extract(1.0, head=True), x), predict(timms, x))


def test_narrower_widths_start_as_slices(published: tuple[Member, Any, str]) -> None:
    """Of weights and of norms alike: the leading channels of timm's."""
    member, timms, file = published
    x, state = images(), timms.state_dict()
    model = warm_start(member, file)
    for width in WIDTHS:
        model.set_width(width)
        twin = member.narrow(width).eval()
        own = twin.state_dict()
        twin.load_state_dict({key: leading(state[key], t, 3 if '.qkv.' in key else 1) for key, t in own.items()})
        features = model.forward_features(x).detach()
        assert_close_to(features, twin.forward_features(x).detach())  # type: ignore[operator]


def test_a_neck_is_new_and_the_log_says_so(
    published: tuple[Member, Any, str], caplog: pytest.LogCaptureFixture
) -> None:
    member, timms, file = published
    with caplog.at_level(logging.WARNING, logger='sfsc_timm'):
        model = warm_start(member, file)
    (record,) = [r for r in caplog.records if r.name.startswith('sfsc_timm')]
    assert 'fc and neck are new' in record.message
    assert 'widths below 1.0 need training' in record.message
    x = images()
    assert_close_to(model.forward_features(x).detach(), timms.forward_features(x).detach())
    fresh = timm.create_model(member.name, num_classes=10, **member.kwargs)
    assert model.fc.weight.std().item() == pytest.approx(fresh.fc.weight.std().item(), rel=0.1)
    assert not torch.equal(model.neck.proj.weight, torch.zeros_like(model.neck.proj.weight))


def test_without_a_neck_nothing_is_new(published: tuple[Member, Any, str], caplog: pytest.LogCaptureFixture) -> None:
    member, _, file = published
    with caplog.at_level(logging.WARNING, logger='sfsc_timm'):
        warm_start(member, file, embed_dim=0)
    assert not caplog.records


@pytest.mark.parametrize('embed_dim', [0, 256])
def test_another_number_of_classes(published: tuple[Member, Any, str], embed_dim: int) -> None:
    member, timms, file = published
    x = images()
    for num_classes in (4, 0):
        model = warm_start(member, file, num_classes=num_classes, embed_dim=embed_dim)
        assert_close_to(model.forward_features(x).detach(), timms.forward_features(x).detach())
        assert model.num_classes == num_classes


def test_grey_images(published: tuple[Member, Any, str]) -> None:
    """Timm sums the first convolution's input channels; so do we."""
    member, timms, file = published
    x = images(channels=1)
    model = warm_start(member, file, in_chans=1)
    assert_close_to(model.forward_features(x).detach(), timms.forward_features(x.repeat(1, 3, 1, 1)).detach())


def test_features_only(published: tuple[Member, Any, str]) -> None:
    member, timms, file = published
    x = images()
    features = warm_start(member, file, features_only=True)
    for ours, theirs in zip(predict(features, x), timms.forward_intermediates(x)[1], strict=True):
        assert_close_to(ours, theirs.detach())


def test_other_sets_of_widths(published: tuple[Member, Any, str]) -> None:
    member, timms, file = published
    x = images()
    for widths in ((1.0,), (0.3, 0.6, 1.0)):
        for embed_dim in (0, 16):
            model = warm_start(member, file, widths=widths, embed_dim=embed_dim)
            assert_close_to(model.forward_features(x).detach(), timms.forward_features(x).detach())


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_our_own_checkpoints_pass_through(member: Member, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x = member.create(), images()
    state = model.state_dict()
    assert checkpoint_filter_fn(state, model) is state
    file = str(tmp_path / 'model.safetensors')
    save_file(state, file)
    with caplog.at_level(logging.WARNING, logger='sfsc_timm'):
        loaded = warm_start(member, file)
        other_head = warm_start(member, file, num_classes=4)
        no_head = warm_start(member, file, num_classes=0)
    assert not caplog.records
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), state.values(), strict=True))
    for width in WIDTHS:
        model.set_width(width)
        for other in (other_head, no_head):
            other.set_width(width)
            assert torch.equal(embed(other, x), embed(model, x))


def test_what_does_not_belong_is_reported() -> None:
    model = RESNET.create()
    state: dict[str, Tensor] = {**timms_own(RESNET).state_dict(), 'no.such.weight': torch.ones(1)}
    with pytest.raises(RuntimeError, match=r'no\.such\.weight'):
        model.load_state_dict(checkpoint_filter_fn(state, model))
    missing = {k: v for k, v in timms_own(RESNET).state_dict().items() if k != 'conv1.0.weight'}
    with pytest.raises(RuntimeError, match=r'conv1\.0\.weight'):
        model.load_state_dict(checkpoint_filter_fn(missing, model))


@pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
def test_checkpoint_path(tmp_path: Path, suffix: str) -> None:
    model, x = RESNET.create(), images()
    file = tmp_path / f'model.{suffix}'
    if suffix == 'pth':
        torch.save({'state_dict': model.state_dict()}, file)
    else:
        save_file(model.state_dict(), file)
    loaded = timm.create_model(RESNET.name, num_classes=10, checkpoint_path=str(file), width=0.25, **RESNET.kwargs)
    model.set_width(0.25)
    assert torch.equal(predict(loaded.eval(), x), predict(model, x))


def test_training_moves_every_width_from_where_it_started() -> None:
    """The filter copies: widths do not share the norm that they started from."""
    model = RESNET.create()
    model.load_state_dict(checkpoint_filter_fn(timms_own(RESNET).state_dict(), model))
    norm: nn.Parameter = dict(model.named_parameters())['bn1.weight']
    parts = norm.detach().split([8, 8, 16, 16])
    assert all(torch.equal(part, parts[-1][: len(part)]) for part in parts)
    with torch.no_grad():
        norm[:8] += 1
    assert not torch.equal(parts[0], parts[-1][:8])
