"""The mechanism on models of no family of ours: transformers with packed qkv, loose parameters and heads."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_close_to, assert_far_from, images, predict
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn

import sfsc_timm
from sfsc_timm.slim import densify, sliced_leaves, slim

WIDTHS = (0.25, 0.5, 1.0)
PACKED = {r'attn\.qkv\.(weight|bias)$': 3}


def vit(**kwargs: Any) -> Callable[..., nn.Module]:
    """A small ViT as a function of the width: heads keep their size, there are fewer of them."""

    def build(width: float, device: str | None = None) -> nn.Module:
        args = {'embed_dim': int(64 * width), 'num_heads': int(8 * width), 'depth': 2, 'img_size': 32, 'patch_size': 8}
        return timm.create_model('vit_tiny_patch16_224', num_classes=5, device=device, **args, **kwargs)

    return build


def mixer(width: float, device: str | None = None) -> nn.Module:
    args = {'num_blocks': 2, 'embed_dim': int(64 * width), 'img_size': 32, 'patch_size': 8, 'num_classes': 5}
    return MlpMixer(**args, device=device)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    'class token': vit(),
    'average': vit(global_pool='avg', class_token=False),
    'registers, scales, norms of q and k': vit(reg_tokens=2, init_values=0.1, qk_norm=True, pre_norm=True),
    'mixer': mixer,
}


def slimmable(build: Callable[..., nn.Module]) -> Any:
    model = build(1.0)
    slim(model, [build(w, device='meta') for w in WIDTHS[:-1]], WIDTHS, PACKED)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or parameter.std() < 1e-3:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def state_by_hand(stored: dict[str, Tensor], twins: list[nn.Module], index: int) -> dict[str, Tensor]:
    norms = {name for name, m in twins[0].named_modules() if isinstance(m, nn.LayerNorm)}
    sliced = {}
    for key, own in twins[index].state_dict().items():
        if key.rpartition('.')[0] in norms:
            start = sum(twin.state_dict()[key].numel() for twin in twins[:index])
            sliced[key] = stored[key][start : start + own.numel()]
        elif 'qkv' in key:
            size, full = own.shape[0] // 3, stored[key].shape[0] // 3
            inputs = tuple(slice(0, n) for n in own.shape[1:])
            sliced[key] = torch.cat([stored[key][(slice(i * full, i * full + size), *inputs)] for i in range(3)])
        else:
            sliced[key] = stored[key][tuple(slice(0, n) for n in own.shape)]
    return sliced


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_every_width_equals_timms_narrow_model(name: str) -> None:
    build = ARCHITECTURES[name]
    model, x = slimmable(build), images()
    twins: list[Any] = [build(w) for w in WIDTHS]
    for index, width in enumerate(WIDTHS):
        sfsc_timm.set_width(model, width)
        twins[index].load_state_dict(state_by_hand(model.state_dict(), twins, index))
        expected = predict(twins[index].eval(), x)
        for _ in range(2):
            assert_close_to(predict(model, x), expected)
        assert_close_to(predict(copy.deepcopy(model), x), expected)
        dense = densify(model)
        assert_close_to(predict(dense, x), expected)
        assert type(dense) is type(twins[index])
        assert {k: t.shape for k, t in dense.state_dict().items()} == {
            k: t.shape for k, t in twins[index].state_dict().items()
        }
        model.train()
        twins[index].train()
        model.zero_grad()
        model(x).square().sum().backward()
        twins[index](x).square().sum().backward()
        full = {key: p.grad for key, p in model.named_parameters()}
        assert all(gradient is not None for gradient in full.values())
        by_hand = state_by_hand({k: full.get(k, t) for k, t in model.state_dict().items()}, twins, index)
        for key, parameter in twins[index].named_parameters():
            torch.testing.assert_close(by_hand[key], parameter.grad, rtol=1e-3, atol=1e-4, msg=key)
        model.eval()


def test_sliced_leaves_of_packed_tensors() -> None:
    model, x = slimmable(ARCHITECTURES['class token']), images()
    with sfsc_timm.at_width(model, 0.5), sliced_leaves(model) as leaves:
        gradients = torch.autograd.grad(model(x).square().sum(), leaves)
    named = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    assert named['blocks.0.attn.qkv.weight'].shape == (96, 32)
    assert named['pos_embed'].shape == (1, 17, 32)
    with sfsc_timm.at_width(model, 0.5):
        model(x).square().sum().backward()
    full = model.blocks[0].attn.qkv.weight.grad.view(3, 64, 64)
    torch.testing.assert_close(named['blocks.0.attn.qkv.weight'], full[:, :32, :32].reshape(96, 32))


def test_loose_parameters_of_the_root_are_never_stale() -> None:
    model, x = slimmable(ARCHITECTURES['class token']), images()
    sfsc_timm.set_width(model, 0.5)
    before = predict(model, x)
    dict(model.named_parameters())['cls_token'].data.normal_()
    after = predict(model, x)
    assert_far_from(after, before)
    assert_close_to(after, predict(densify(model), x))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(predict(torch.load(buffer, weights_only=False), x), after)


def test_plain_attributes_follow() -> None:
    model = slimmable(ARCHITECTURES['class token'])
    for width in (0.25, 1.0, 0.5):
        sfsc_timm.set_width(model, width)
        attention = model.blocks[0].attn
        assert (attention.num_heads, attention.head_dim, model.embed_dim) == (8 * width, 8, 64 * width)
        assert model.norm.normalized_shape == (64 * width,)
        assert attention.qkv.out_features == 3 * 64 * width


def test_batch_statistics_of_loose_norms() -> None:
    """A model by hand: norms without affine parameters or without statistics."""

    def build(width: float) -> nn.Module:
        c = int(8 * width)
        return nn.Sequential(
            nn.Conv2d(3, c, 3), nn.BatchNorm2d(c, affine=False), nn.GroupNorm(2, c), nn.InstanceNorm2d(c, affine=True)
        )

    model = build(1.0)
    slim(model, [build(0.5)], (0.5, 1.0))
    sfsc_timm.set_width(model, 0.5)
    x = images(batch=4)
    assert predict(model, x).shape[1] == 4
    dense = densify(model)
    assert_close_to(predict(model, x), predict(dense, x))
    assert model.state_dict()['1.running_mean'].shape == (12,)


@pytest.mark.parametrize(
    'twins, widths, message',
    [
        ([], (0.5, 1.0), r'twins must be one fewer than widths, got 0 twins for widths \(0\.5, 1\.0\)'),
        ([nn.Sequential(nn.Linear(4, 4))], (0.5, 1.0), r'twin of width 0\.5 .* got no such module for the ReLU'),
        ([nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU())], (0.5, 1.0), r'got a Conv1d for the Linear'),
        ([nn.Sequential(nn.Linear(4, 16), nn.ReLU())], (0.5, 1.0), r'0\.weight: shapes must grow with the width'),
    ],
    ids=['number', 'missing', 'other class', 'wider'],
)
def test_twins_must_fit(twins: list[nn.Module], widths: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slim(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), twins, widths)


def test_what_does_not_depend_on_the_width_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    slim(model, [nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))], (0.5, 1.0))
    assert type(model[0]) is nn.Linear
    assert type(model[1]) is not nn.Linear
    assert isinstance(model[1], nn.Linear)
    assert repr(model) == repr(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)))
