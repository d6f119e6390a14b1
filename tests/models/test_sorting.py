"""Channels sorted by importance: the full width stays what it is, and the leading slices hold what matters."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    CONVNEXT,
    DINOV3,
    EFFICIENTNET,
    MOBILENET,
    RESNET,
    SMALL_BOTTLENECK,
    VIT,
    VIT_MAP,
    Member,
    assert_close_to,
    assert_far_from,
    embed,
    images,
    name_of,
    predict,
    slice_by_hand,
)
from torch import Tensor, nn

import sfsc_timm  # noqa: F401
from sfsc_timm.models import sort_channels
from sfsc_timm.models._channels import trace_channels

LITE = Member('sfsc_efficientnet_lite0', EFFICIENTNET.narrow, EFFICIENTNET.kwargs)
MEMBERS = (RESNET, SMALL_BOTTLENECK, EFFICIENTNET, LITE, CONVNEXT, MOBILENET, VIT, VIT_MAP, DINOV3)


def groups_of(model: Any) -> list[Any]:
    return trace_channels(model.extract(1.0), [images(size=64)], keep_output=True)


@pytest.mark.parametrize('member', MEMBERS, ids=name_of)
def test_the_full_width_stays_what_it_is(member: Member) -> None:
    model, x = member.create(width=0.5), images(size=member.kwargs.get('img_size', 64))
    narrow, before = embed(model, x), {k: t.clone() for k, t in model.state_dict().items()}
    with model.at_width(1.0):
        expected, logits = embed(model, x), predict(model, x)
    order = sort_channels(model, x)
    assert model.width == 0.5
    assert_far_from(embed(model, x), narrow)
    with model.at_width(1.0):
        assert_close_to(embed(model, x), expected)
        assert_close_to(predict(model, x), logits)
        assert sorted(order.tolist()) == list(range(model.extract(1.0).head_hidden_size)) != order.tolist()
    after = model.state_dict()
    moved = {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    weights = {key for key, tensor in before.items() if tensor.ndim > 1 and not key.startswith('fc.')}
    assert weights - moved <= {'attn_pool.latent'}  # it is read alone


@pytest.mark.parametrize('member', [m for m in MEMBERS if m is not VIT_MAP], ids=name_of)  # its latent is read alone
def test_one_order_for_each_residual_stream_and_for_each_expansion(member: Member) -> None:
    """Every weight takes part in it on both sides, but for the image's and the embedding's."""
    model: Any = member.create().extract(1.0)
    size = member.kwargs.get('img_size', 64)
    groups = trace_channels(model, [images(size=size)], keep_output=True)
    places = [place for group in groups for place in group.places]
    assert len(set(places)) == len(places)
    modules = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    sides = {(f'{name}.weight', 0) for name, _ in modules}
    sides |= {(f'{name}.weight', 1) for name, m in modules if getattr(m, 'groups', 1) == 1}
    first, last = modules[0][0], modules[-1][0]
    assert sides - set(places) == {(f'{first}.weight', 1), (f'{last}.weight', 0)}


def test_heads_move_whole_and_the_one_that_is_read_most_comes_first() -> None:
    model: Any = VIT.create(embed_dim=0, num_classes=0)
    size, attention = VIT.kwargs['head_size'], model.blocks[1].attn
    with torch.no_grad():
        attention.proj.weight[:, 2 * size : 3 * size] *= 10
    rows = attention.qkv.bias.detach().clone().unflatten(0, (3, -1, size))
    sort_channels(model, images())
    after = attention.qkv.bias.unflatten(0, (3, -1, size))
    assert torch.equal(after[:, 0], rows[:, 2])
    whole = [{tuple(head.flatten().tolist()) for head in heads.unbind(1)} for heads in (rows, after)]
    assert whole[0] == whole[1]


def test_the_groups_of_a_residual_network() -> None:
    """ResNet-18-D with a block a stage: two convolutions of the stem, which ends in the first stage's stream; then the
    stream of each stage and the inside of its block."""
    groups = groups_of(RESNET.create())
    assert [group.size for group in groups] == [8, 8, 16, 16, 32, 32, 64, 64, 128, 128]
    [stream] = [group for group in groups if ('layer2.0.conv2.weight', 0) in group.places]
    assert ('layer2.0.downsample.1.weight', 0) in stream.places
    assert set(stream.readers) == {'layer3.0.conv1.weight', 'layer3.0.downsample.1.weight'}


@pytest.mark.parametrize('member', MEMBERS, ids=name_of)
def test_the_second_time_nothing_moves(member: Member) -> None:
    model, x = member.create(), images(size=member.kwargs.get('img_size', 64))
    sort_channels(model, x)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    order = sort_channels(model, x)
    assert order.tolist() == list(range(len(order)))
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_channels_that_carry_nothing_come_last() -> None:
    """The stream of a stage in which three channels of four are silenced, at random places."""
    model, x = RESNET.create(), images(size=64)
    silent = torch.randperm(64)[16:]
    with torch.no_grad():
        for norm in (model.layer3[0].bn2, model.layer3[0].downsample[2]):
            for tensor in norm.state_dict(keep_vars=True).values():
                if tensor.requires_grad:
                    tensor[-64:][silent] = 0

    def active() -> Tensor:
        return model.forward_intermediates(x, indices=[3])[1][0].detach().abs().sum((0, 2, 3)) > 0

    before = active()
    sort_channels(model, x)
    after = active()
    assert before[16:].any()
    assert after[: int(before.sum())].all()
    assert not after[16:].any()


@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=name_of)
def test_narrow_widths_are_slices_of_the_sorted_network(member: Member) -> None:
    """Norms, too: each width's begin again as the leading slice of the full one's."""
    model, x = member.create(), images(size=64)
    sort_channels(model, x)
    full, twins = model.extract(1.0).state_dict(), member.twins()
    stored = model.state_dict()
    for index, twin in enumerate(twins):
        for key, tensor in slice_by_hand(stored, twins, index).items():
            if tensor.ndim:
                assert torch.equal(tensor, full[key][tuple(slice(0, n) for n in twin.state_dict()[key].shape)]), key


def test_without_a_head_the_features_come_in_the_new_order() -> None:
    model, x = LITE.create(num_classes=0, embed_dim=0), images(size=64)
    expected = predict(model, x)
    order = sort_channels(model, x)
    assert_close_to(predict(model, x), expected[:, order])
    energy = predict(model, x).square().sum(0)
    assert (energy[:-1] >= energy[1:] * (1 - 1e-4)).all()


def test_a_classifier_on_the_features_reads_them_in_the_new_order() -> None:
    model, x = EFFICIENTNET.create(embed_dim=0), images(size=64)
    expected = predict(model, x)
    sort_channels(model, x)
    assert_close_to(predict(model, x), expected)


def test_without_images_noise_stands_for_them() -> None:
    """The same noise always; several batches count as one set."""
    first, second, x = RESNET.create(), RESNET.create(), images(size=64)
    second.load_state_dict(first.state_dict())
    expected = embed(first, x)
    assert torch.equal(sort_channels(first), sort_channels(second))
    assert_close_to(embed(first, x), expected)
    batches: list[Tensor] = [images(size=64), images(size=64)]
    assert torch.equal(sort_channels(first, batches), sort_channels(second, torch.cat(batches)))
    with pytest.raises(ValueError, match='images must hold at least one image'):
        sort_channels(first, [])


def test_training_mode_stays_and_statistics_are_not_touched() -> None:
    model, x = RESNET.create().train(), images(size=64)
    counts = {k: t.clone() for k, t in model.state_dict().items() if k.endswith('num_batches_tracked')}
    sort_channels(model, x)
    assert model.training
    assert all(torch.equal(model.state_dict()[k], t) for k, t in counts.items())


class _Order(nn.Module):
    """Adds a ramp over the channels, which no rule of tracing can see to depend on their order."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linspace(0, 1, x.shape[1]).view(1, -1, 1, 1)


def test_a_network_that_asks_for_the_order_is_refused_and_left_alone() -> None:
    model, x = RESNET.create(), images(size=64)
    model.layer2.append(_Order())
    before = {k: t.clone() for k, t in model.state_dict().items()}
    with pytest.raises(RuntimeError, match='cannot be sorted: its output would change by'):
        sort_channels(model, x)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


@pytest.mark.parametrize('pool', ['catavgmax', ''])
def test_a_head_that_no_order_fits_keeps_the_features_in_place(pool: str) -> None:
    model, x = timm.create_model(RESNET.name, num_classes=0, global_pool=pool, **RESNET.kwargs).eval(), images(size=64)
    expected = predict(model, x)
    order = sort_channels(model, x)
    assert order.tolist() == list(range(len(order)))
    assert_close_to(predict(model, x), expected)
