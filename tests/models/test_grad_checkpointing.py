"""Recomputation in backward runs at the width and with the slices of its own forward."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import pytest
import torch
from helpers.zoo import (
    CONVNEXT,
    EFFICIENTNET,
    FAMILIES,
    RESNET,
    WIDTHS,
    Member,
    channels_of,
    images,
    name_of,
    predict,
)
from torch import Tensor, nn

from sfsc_timm.slim import sliced_leaves


def frozen_norms(member: Member, **kwargs: Any) -> Any:
    """A model in training without batch statistics, so that results may be compared to the last digit."""
    model = member.create(**kwargs).double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    return model


def gradients(model: nn.Module) -> list[Tensor]:
    found = [p.grad for p in model.parameters()]
    assert all(g is not None for g in found)
    model.zero_grad(set_to_none=True)
    return found  # type: ignore[return-value]


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class _Calls:
    """Counts the forwards of the first recomputed block."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        block = next(m for name, m in model.named_modules() if re.fullmatch(model.block_pattern, name))
        layer = next(m for m in block.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
        layer.register_forward_pre_hook(self._count)

    def _count(self, *args: Any) -> None:
        self.count += 1


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_gradients_are_those_without(member: Member) -> None:
    model, x = frozen_norms(member), images().double()
    calls = _Calls(model)
    for width in WIDTHS:
        model.set_width(width)
        model(x).square().sum().backward()
        expected = gradients(model)
        calls.count = 0
        model.set_grad_checkpointing()
        model(x).square().sum().backward()
        assert calls.count == 2  # it does recompute
        assert_same(gradients(model), expected)
        model.set_grad_checkpointing(False)
        calls.count = 0
        model(x).square().sum().backward()
        assert calls.count == 1
        assert_same(gradients(model), expected)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_switching_between_forward_and_backward(member: Member) -> None:
    model, x = frozen_norms(member), images().double()
    for width, later in ((0.25, 1.0), (1.0, 0.25), (0.5, 0.75)):
        model.set_width(width)
        model(x).square().sum().backward()
        expected = gradients(model)
        model.set_grad_checkpointing()
        loss = model(x).square().sum()
        model.set_width(later)
        loss.backward()
        assert_same(gradients(model), expected)
        assert model.width == later
        assert model.num_features == channels_of(model.forward_features(x))
        model.set_grad_checkpointing(False)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_two_widths_before_one_backward(member: Member) -> None:
    model, x = frozen_norms(member), images().double()

    def losses() -> Tensor:
        total = torch.zeros((), dtype=x.dtype)
        for width in (0.25, 1.0, 0.5):
            with model.at_width(width):
                total = total + model(x).square().sum()
        return total

    losses().backward()
    expected = gradients(model)
    model.set_grad_checkpointing()
    losses().backward()
    assert_same(gradients(model), expected)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_under_sliced_leaves(member: Member) -> None:
    """Also when backward comes after the block, and after another width's."""
    model, x = frozen_norms(member), images().double()

    def run() -> list[Tensor]:
        pending = []
        for width in (0.25, 0.75, 1.0):
            with model.at_width(width), sliced_leaves(model) as leaves:
                pending.append((model(x).square().sum(), leaves))
        return [g for loss, leaves in reversed(pending) for g in torch.autograd.grad(loss, leaves, allow_unused=False)]

    expected = run()
    model.set_grad_checkpointing()
    assert_same(run(), expected)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_batch_statistics_and_dropout_are_recomputed_alike(member: Member) -> None:
    """In real training: the random numbers are restored, so the gradients are those without checkpointing."""
    model, x = member.create(drop_path_rate=0.3).double().train(), images(batch=8).double()
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    for m in (model, other):
        torch.manual_seed(1)
        with m.at_width(0.5):
            loss = m(x).square().sum()
        loss.backward()
    assert_same(gradients(other), gradients(model))


def test_running_statistics_count_a_batch_once() -> None:
    plain, batches = RESNET.create().train(), [images(batch=4) for _ in range(3)]
    recomputed = copy.deepcopy(plain)
    recomputed.set_grad_checkpointing()
    for model in (plain, recomputed):
        for x in batches:
            with model.at_width(0.5):
                model(x).square().mean().backward()
    assert recomputed.layer1[0].bn1.num_batches_tracked.item() == 0
    with recomputed.at_width(0.5):
        assert recomputed.layer1[0].bn1.num_batches_tracked.item() == 3
    for (name, ours), theirs in zip(recomputed.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize('member', [RESNET, CONVNEXT, EFFICIENTNET], ids=name_of)
def test_copies_and_pickles(member: Member) -> None:
    model, x = member.create(width=0.5), images()
    model.set_grad_checkpointing()
    expected = predict(model, x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert torch.equal(predict(other, x), expected)
        other.set_grad_checkpointing()
        other.train()(images(batch=4)).sum().backward()
        other.set_width(0.25)
        assert other.width == 0.25
    assert torch.equal(predict(model, x), expected)
    calls = _Calls(model)
    model.train()(images(batch=4)).sum().backward()
    assert calls.count == 2


def test_extraction_and_repetition() -> None:
    model, x = CONVNEXT.create(width=0.5), images()
    expected = predict(model, x)
    for _ in range(2):
        model.set_grad_checkpointing()
    assert torch.equal(predict(model, x), expected)
    dense = model.extract(head=True)
    assert not any(cls.__module__.startswith('sfsc_timm') for m in dense.modules() for cls in type(m).__mro__)
    assert not any('_recomputes' in vars(cls) for m in dense.modules() for cls in type(m).__mro__)
    for _ in range(2):
        model.set_grad_checkpointing(False)
    assert not any('_recomputes' in vars(cls) for m in model.modules() for cls in type(m).__mro__)
    assert torch.equal(predict(model, x), expected)
