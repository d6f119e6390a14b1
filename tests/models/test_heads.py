"""Cosine classifier, neck, and the neck folded into one linear layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfsc_timm.models._heads import CosineLinear, create_neck, fold_neck


def test_cosine_logits_by_a_naive_loop() -> None:
    layer = CosineLinear(5, 3, scale=10.0).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    logits = layer(x)
    for i in range(4):
        for c in range(3):
            a, b = x[i].tolist(), layer.weight[c].tolist()
            cosine = sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
            assert logits[i, c].item() == pytest.approx(10 * cosine)
    assert torch.allclose(layer(7 * x), logits)
    assert logits.abs().max() <= 10


def test_cosine_of_zero_is_finite() -> None:
    layer = CosineLinear(5, 3)
    x = torch.zeros(2, 5, requires_grad=True)
    logits = layer(x)
    assert torch.equal(logits, torch.zeros(2, 3))
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('scale', [0.0, -1.0])
def test_cosine_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match=f'scale must be positive, got {scale}'):
        CosineLinear(5, 3, scale=scale)


def test_cosine_says_what_it_is() -> None:
    assert repr(CosineLinear(5, 3, device='meta')) == 'CosineLinear(in_features=5, out_features=3, scale=16.0)'


@pytest.mark.parametrize('norm', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_folded_neck_is_equal(norm: bool, dtype: torch.dtype) -> None:
    neck = create_neck(12, 8, norm, dtype=dtype)
    if norm:
        with torch.no_grad():
            for name, tensor in neck.bn.state_dict().items():  # type: ignore[union-attr]
                if tensor.is_floating_point():
                    tensor.uniform_(0.1, 3.0) if 'var' in name else tensor.normal_()
    neck.eval()
    folded = fold_neck(neck)
    assert type(folded) is nn.Linear
    assert folded.bias is not None
    assert folded.weight.dtype is dtype
    assert not folded.training
    x = torch.randn(6, 12, dtype=dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(folded(x), neck(x), rtol=tolerance, atol=tolerance)
    before = folded(x)
    with torch.no_grad():
        neck.proj.weight.zero_()  # type: ignore[union-attr]
    assert torch.equal(folded(x), before)  # its own storage


def test_a_neck_with_a_norm_needs_no_bias() -> None:
    assert create_neck(3, 2, True).proj.bias is None  # type: ignore[union-attr]
    assert create_neck(3, 2, False).proj.bias is not None  # type: ignore[union-attr]
    assert [name for name, _ in create_neck(3, 2, False).named_parameters()] == ['proj.weight', 'proj.bias']
