"""Gradients at the size of the slice are the slices of autograd's own."""

from __future__ import annotations

import pytest
import torch
from helpers.zoo import CONVNEXT, FAMILIES, RESNET, WIDTHS, Member, images, name_of, predict, slice_by_hand
from torch import nn

import sfsc_timm
from sfsc_timm.slim import sliced_leaves


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_gradients_are_slices_of_the_full_ones(member: Member) -> None:
    model = member.create().double().train()
    twins = [member.narrow(w) for w in WIDTHS]
    x = images(batch=4).double()
    named = dict(model.named_parameters())
    sizes = []
    for index, width in enumerate(WIDTHS):
        model.set_width(width)
        model.zero_grad(set_to_none=True)
        expected_loss = model(x).square().sum()
        expected_loss.backward()
        with sliced_leaves(model) as leaves:
            loss = model(x).square().sum()
        torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=0)
        gradients = torch.autograd.grad(loss, leaves)
        assert len(gradients) == len(named)
        full = {key: p.grad for key, p in named.items() if p.grad is not None}
        assert full.keys() == named.keys()
        by_hand = slice_by_hand({k: full.get(k, t) for k, t in model.state_dict().items()}, twins, index)
        for key, gradient in zip(named, gradients, strict=True):
            if key in by_hand:  # backbone
                torch.testing.assert_close(gradient, by_hand[key], rtol=1e-9, atol=1e-12)
            assert gradient.abs().sum().item() == pytest.approx(full[key].abs().sum().item())
        sizes.append(sum(g.numel() for g in gradients))
        assert all(p.grad is full[key] for key, p in named.items())  # nothing was added to `.grad`
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] <= sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_leaves_are_what_the_parameters_are_at_this_width(member: Member) -> None:
    model = member.create(width=0.5)
    parameters = list(model.parameters())
    with sliced_leaves(model) as leaves:
        assert len(leaves) == len(parameters)
        assert all(leaf.is_leaf and leaf.requires_grad and leaf.is_contiguous() for leaf in leaves)
        dense = list(model.extract(0.5).state_dict().values())
        assert leaves[0].shape == dense[0].shape
    whole = [leaf is parameter for leaf, parameter in zip(leaves, parameters, strict=True)]
    assert any(whole)
    assert not all(whole)
    model.set_width(1.0)
    with sliced_leaves(model) as leaves:
        different = [leaf for leaf, p in zip(leaves, parameters, strict=True) if leaf is not p]
    assert all(leaf.ndim == 1 for leaf in different)  # each width's segment of a norm


def test_the_block_ends_with_everything_as_before() -> None:
    model, x = RESNET.create(width=0.5), images()
    before = predict(model, x)
    with pytest.raises(KeyError), sliced_leaves(model):
        raise KeyError
    with sliced_leaves(model) as leaves:
        inside = predict(model, x)
        with torch.no_grad():
            leaves[0].zero_()  # a snapshot: not the parameter
    assert torch.equal(inside, before)
    assert torch.equal(predict(model, x), before)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_frozen_parameters_stay_frozen() -> None:
    model = RESNET.create(width=0.5)
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)
    with sliced_leaves(model) as leaves:
        assert [leaf.requires_grad for leaf in leaves] == [p.requires_grad for p in model.parameters()]


def test_statistics_of_the_active_width_are_updated() -> None:
    model, x = RESNET.create(width=0.5).train(), images(batch=4)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    with sliced_leaves(model):
        model(x)
    after = model.state_dict()
    counters = [k for k in after if k.endswith('num_batches_tracked')]
    assert all((after[k] - before[k]).tolist() == [0, 1, 0, 0] for k in counters)
    changed = before['bn1.running_mean'] != after['bn1.running_mean']
    assert [part.any().item() for part in changed.split([8, 8, 16, 16])] == [False, True, False, False]


@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=name_of)
def test_inside_a_wrapper(member: Member) -> None:
    model, x = member.create().train(), images(batch=4)
    wrapped = nn.Sequential(model)
    with sfsc_timm.at_width(wrapped, 0.25), sliced_leaves(wrapped) as leaves:
        gradients = torch.autograd.grad(wrapped(x).square().sum(), leaves)
    assert [g.shape for g in gradients] == [leaf.shape for leaf in leaves]
