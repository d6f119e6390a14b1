"""Nested embedding sizes: what the first numbers of an embedding are, against slices by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.zoo import CONVNEXT, EFFICIENTNET, FAMILIES, RESNET, Member, assert_close_to, images, name_of, predict
from timm.models import save_for_hf

from sfsc_timm.models._heads import CosineLinear, classify_fixed, classify_leading

SIZES = (4, 8, 24)


def embed(model: Any, x: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model.embed(x, dim=dim)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_a_nested_model_has_the_weights_and_bits_of_one_size(member: Member) -> None:
    torch.manual_seed(0)
    nested, x = member.create(embed_dims=(8, 24, 4)), images()
    torch.manual_seed(0)
    plain = member.create(embed_dim=24)
    assert (nested.embed_dims, nested.embed_dim, plain.embed_dims) == (SIZES, 24, (24,))
    assert member.create(embed_dim=0).embed_dims == ()
    state, expected = nested.state_dict(), plain.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)
    for width in (0.25, 1.0):
        with nested.at_width(width), plain.at_width(width):
            whole = embed(plain, x)
            assert torch.equal(embed(nested, x), whole)
            for size in SIZES:
                assert torch.equal(embed(nested, x, size), whole[:, :size])
    assert 'embed_dims=(4, 8, 24)' in repr(nested)
    assert 'embed_dims' not in repr(plain)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('kwargs', [{'neck_norm': True}, {'neck_norm': False}, {'classifier_type': 'cosine'}], ids=str)
def test_extraction_with_a_smaller_neck(member: Member, kwargs: dict[str, Any]) -> None:
    model, x = member.create(embed_dims=SIZES, **kwargs), images()
    for width in (0.5, 1.0):
        with model.at_width(width):
            expected = embed(model, x, 8)
        dense = model.extract(width, dim=8)
        assert_close_to(predict(dense, x), expected)
        layer: Any = dense.get_classifier()  # type: ignore[operator]
        assert (layer.out_features, dense.num_classes) == (8, 8)
        parameters = [sum(p.numel() for p in m.parameters()) for m in (dense, model.extract(width))]
        assert parameters[1] - parameters[0] == (24 - 8) * (layer.in_features + 1)
        weight = model.fc.weight.detach()[:, :8]
        if 'classifier_type' in kwargs:
            logits = 16.0 * F.normalize(expected, dim=1) @ F.normalize(weight, dim=1).T
        else:
            logits = expected @ weight.T + model.fc.bias.detach()
        assert_close_to(predict(model.extract(width, head=True, dim=8), x), logits)
    assert model.extract(1.0, dim=8).get_classifier().weight.data_ptr() != model.neck.proj.weight.data_ptr()


def test_plain_timm_loads_a_small_neck(tmp_path: Path) -> None:
    x = images()
    for member, width in ((RESNET, 0.5), (CONVNEXT, 0.25)):
        model = member.create(embed_dims=SIZES)
        save_for_hf(model.extract(width, plain=True, dim=4), str(tmp_path / member.name), safe_serialization=True)
        loaded = timm.create_model(f'local-dir:{tmp_path / member.name}', pretrained=True).eval()
        assert type(loaded) is type(member.narrow(1.0))
        with model.at_width(width):
            assert_close_to(predict(loaded, x), embed(model, x, 4))


def test_sizes_follow_saving_and_pruning(tmp_path: Path) -> None:
    model = RESNET.create(embed_dims=SIZES)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    again: Any = timm.create_model(f'local-dir:{tmp_path}', pretrained=True)
    assert again.embed_dims == SIZES
    model.prune_intermediate_layers([1], prune_norm=True, prune_head=True)
    assert model.embed_dims == ()


@pytest.mark.parametrize('classifier', [torch.nn.Linear(6, 4), CosineLinear(6, 4)], ids=['linear', 'cosine'])
def test_leading_columns(classifier: Any) -> None:
    x = torch.randn(3, 6, requires_grad=True)
    assert torch.equal(classify_leading(classifier, x), classifier(x))
    logits = classify_leading(classifier, x[:, :2])
    if isinstance(classifier, CosineLinear):
        expected = 16.0 * F.normalize(x[:, :2], dim=1) @ F.normalize(classifier.weight[:, :2], dim=1).T
    else:
        expected = x[:, :2] @ classifier.weight[:, :2].T + classifier.bias
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(classify_fixed(classifier, x[:, :2]), logits)
    gradient = torch.autograd.grad(logits.sum(), classifier.weight)[0]
    assert gradient[:, :2].any()
    assert not gradient[:, 2:].any()
    assert torch.autograd.grad(classify_fixed(classifier, x[:, :2]).sum(), classifier.weight, allow_unused=True) == (
        None,
    )


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'embed_dims': (8, 8)}, r'embed_dims must be different whole numbers of at least 1, got \(8, 8\)'),
        ({'embed_dims': (8, 0)}, 'embed_dims must be whole, from 1 to 16384, got 0'),
        ({'embed_dims': 8}, r'embed_dims must be a list of whole numbers, such as \(32, 64, 128, 256\), got 8'),
        ({'embed_dims': (8, 2.0)}, r'embed_dims must be whole, from 1 to 16384, got 2\.0'),
        ({'embed_dims': (8, 16), 'embed_dim': 8}, 'embed_dim must be the largest of embed_dims, 16, got 8'),
        ({'embed_dims': (8, 16), 'embed_dim': 0}, 'embed_dim must be the largest of embed_dims, 16, got 0'),
    ],
    ids=str,
)
def test_sizes_that_are_none(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RESNET.create(**kwargs)


def test_sizes_that_a_model_does_not_have() -> None:
    model, x = RESNET.create(embed_dims=SIZES), images()
    for unknown in (5, 0, True, '8'):
        with pytest.raises(ValueError, match=r'dim must be one of \(4, 8, 24\)'):
            model.embed(x, dim=unknown)
        with pytest.raises(ValueError, match=r'dim must be one of \(4, 8, 24\)'):
            model.extract(0.5, dim=unknown)
    with pytest.raises(ValueError, match=r'dim must be one of \(256,\), got 64'):
        RESNET.create().embed(x, dim=64)
    unpooled = RESNET.create(num_classes=0, global_pool='', embed_dims=SIZES)
    with pytest.raises(ValueError, match='dim needs pooled features'):
        unpooled.extract(0.5, dim=8)
    with pytest.raises(ValueError, match=r'dim needs embeddings \(B, D\)'):
        unpooled.embed(x, dim=8)
    with pytest.raises(ValueError, match='plain timm cannot express'):
        EFFICIENTNET.create(embed_dims=SIZES).extract(0.5, plain=True, dim=8)
