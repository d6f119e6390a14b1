"""What is stored: shared weights once, each width's normalisation apart, all of it reached by gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from helpers.zoo import FAMILIES, RESNET, SMALL_BOTTLENECK, WIDTHS, Member, images, name_of, predict
from timm.optim import param_groups_weight_decay
from torch import nn

import sfsc_timm  # noqa: F401

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


def norm_tensors(model: nn.Module) -> set[str]:
    """Names of all tensors of norms."""
    return {
        f'{name}.{tensor}'
        for name, module in model.named_modules()
        if isinstance(module, NORMS)
        for tensor in dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    }


@pytest.mark.parametrize('member', [*FAMILIES, SMALL_BOTTLENECK], ids=name_of)
def test_shared_weights_are_stored_once(member: Member) -> None:
    model, full = member.create(), member.narrow(1.0)
    head = {'neck.proj.weight', 'fc.weight', 'fc.bias'}
    if type(model).neck_norm:
        head |= {f'neck.bn.{n}' for n in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')}
    else:
        head.add('neck.proj.bias')
    assert set(model.state_dict()) == set(full.state_dict()) | head

    norms = norm_tensors(full)
    sizes = dict.fromkeys((k for k, _ in full.named_parameters()), 0)
    for width in WIDTHS:
        for key, parameter in member.narrow(width).named_parameters():
            sizes[key] = sizes[key] + parameter.numel() if key in norms else parameter.numel()
    pooled = full(images()).shape[1]
    neck = 256 * pooled + (2 * 256 * len(WIDTHS) if type(model).neck_norm else 256)
    stored = {key: parameter.numel() for key, parameter in model.named_parameters()}
    assert {key: stored[key] for key in sizes} == sizes
    assert sum(stored.values()) == sum(sizes.values()) + neck + 10 * 256 + 10
    storages = [tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_the_classifier_comes_last(member: Member) -> None:
    """AGC leaves the last two parameters out."""
    model = member.create()
    names = [name for name, _ in model.named_parameters()]
    assert names[-2:] == ['fc.weight', 'fc.bias']
    model.reset_classifier(5, 'max')
    assert [name for name, _ in model.named_parameters()] == names
    assert model.get_classifier(name_only=True) == 'fc'
    assert model.get_classifier() is model.fc


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_norms_are_left_out_of_weight_decay(member: Member) -> None:
    model = member.create()
    no_decay, decay = param_groups_weight_decay(model, weight_decay=0.1)
    assert (no_decay['weight_decay'], decay['weight_decay']) == (0.0, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {names[id(p)] for p in no_decay['params']}
    decayed = {names[id(p)] for p in decay['params']}
    assert norm_tensors(model) & set(names.values()) <= spared
    assert {n for n, p in member.narrow(1.0).named_parameters() if p.ndim > 1} <= decayed
    assert {'neck.proj.weight', 'fc.weight'} <= decayed
    assert 'fc.bias' in spared


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_every_parameter_gets_a_gradient_at_every_width(member: Member) -> None:
    model = member.create().train()
    for width in WIDTHS:
        model.zero_grad(set_to_none=True)
        with model.at_width(width):
            model(images(batch=4)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.shape == parameter.shape
            assert parameter.grad.isfinite().all()
            if width == 1.0:
                assert parameter.grad.any(), name


@pytest.mark.parametrize('member', [RESNET, FAMILIES[2]], ids=name_of)
def test_each_width_has_its_own_statistics(member: Member) -> None:
    """A step at one width changes the running statistics of this width and no other's."""
    model: Any = member.create()
    keys = [k for k in model.state_dict() if k.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
    twins = [model.extract(width).state_dict() for width in WIDTHS]
    for index, width in enumerate(WIDTHS):
        before = {k: t.clone() for k, t in model.state_dict().items()}
        model.train()
        with model.at_width(width), torch.no_grad():
            model(images(batch=4))
        model.eval()
        after = model.state_dict()
        for key in keys:
            changed = before[key] != after[key]
            sizes = [twin[key].numel() if key in twin else len(changed) // 4 for twin in twins]
            segments = changed.split(sizes)
            assert segments[index].all() or segments[index].float().mean() > 0.9, key
            assert not any(segment.any() for k, segment in enumerate(segments) if k != index), key
        assert all(torch.equal(before[k], after[k]) for k in after if k not in keys)


def test_a_step_at_one_width_leaves_the_norms_of_others_alone() -> None:
    model: Any = RESNET.create().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    segment = model.state_dict()['bn1.weight'].split([8, 8, 16, 16])
    before = [s.clone() for s in segment]
    with model.at_width(0.5):
        model(images(batch=4)).square().sum().backward()
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(segment, before, strict=True)]
    assert changed == [False, True, False, False]


def test_a_frozen_width_still_learns_nothing_from_others_norms() -> None:
    """Private segments: writing one width's norm does not move another width's output."""
    model, x = RESNET.create(), images()
    outputs = []
    for width in WIDTHS:
        model.set_width(width)
        outputs.append(predict(model, x))
    with torch.no_grad():
        model.state_dict()['bn1.weight'][:8] *= 3
    for width, before in zip(WIDTHS, outputs, strict=True):
        model.set_width(width)
        assert torch.equal(predict(model, x), before) == (width != 0.25)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_layer_groups_cover_every_parameter(member: Member) -> None:
    """timm's layer-wise learning rates see the names they know; what stands on the backbone forms the last group."""
    from timm.models import group_parameters

    model = member.create()
    groups = group_parameters(model, model.group_matcher(coarse=False))
    grouped = [name for names in groups.values() for name in names]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    assert {'neck.proj.weight', 'fc.weight'} <= set(groups[max(groups)])


def test_full_width_has_timms_initial_values() -> None:
    """Same seed, same weights as timm's model: slimming does not touch the random numbers before the head."""
    torch.manual_seed(1)
    ours = timm.create_model(RESNET.name, **RESNET.kwargs).state_dict()
    torch.manual_seed(1)
    theirs = timm.create_model(RESNET.plain_name, num_classes=0, **RESNET.kwargs).state_dict()
    norms = norm_tensors(timm.create_model(RESNET.plain_name, num_classes=0, **RESNET.kwargs))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs if key not in norms)
