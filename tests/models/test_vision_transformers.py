"""Vision transformers: which widths there are, sizes of images, weights of timm's, and what training needs of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    DINOV2,
    DINOV3,
    VIT,
    VIT_AVERAGE,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    embed,
    images,
    leading,
    name_of,
    predict,
    randomised,
)
from safetensors.torch import save_file
from torch import nn

from sfsc_timm.checkpoints import save_model, save_width
from sfsc_timm.evaluation import model_cost
from sfsc_timm.slim import sliced_leaves

TINY = 'sfsc_vit_tiny_patch16_224'
_SHALLOW = {'depth': 1, 'device': 'meta'}


@pytest.mark.parametrize(
    'name, widths, heads',
    [
        (TINY, (0.333333, 0.666667, 1.0), [1, 2, 3]),
        ('sfsc_vit_small_patch16_224', (0.333333, 0.5, 0.833333, 1.0), [2, 3, 5, 6]),
        ('sfsc_vit_base_patch14_dinov2', (0.25, 0.5, 0.75, 1.0), [3, 6, 9, 12]),
        ('sfsc_vit_small_patch16_dinov3', (0.333333, 0.5, 0.833333, 1.0), [2, 3, 5, 6]),
    ],
)
def test_default_widths_are_fractions_of_the_heads(name: str, widths: tuple[float, ...], heads: list[int]) -> None:
    model: Any = timm.create_model(name, **_SHALLOW)
    assert model.widths == widths
    for width, count in zip(widths, heads, strict=True):
        model.set_width(width)
        attention = model.blocks[0].attn
        assert (attention.num_heads, attention.head_dim, attention.scale) == (count, 64, 0.125)
        assert model.num_features == 64 * count
    model.set_width(1 / 3 if 0.333333 in widths else 0.25)  # by its number as by its name
    assert model.width == widths[0]


def test_heads_are_rounded_half_up_and_at_least_one() -> None:
    model: Any = timm.create_model(TINY, num_heads=6, widths=(0.01, 0.25, 0.75, 1.0), **_SHALLOW)
    found = []
    for width in model.widths:
        model.set_width(width)
        found.append(model.blocks[0].attn.num_heads)
    assert found == [1, 2, 5, 6]


@pytest.mark.parametrize('full_width, heads', [(1.0, 3), (0.666667, 2)])
def test_widths_of_the_same_network_are_refused(full_width: float, heads: int) -> None:
    message = rf'got 0\.9 and 1, which both have {heads} of {heads}; leave one of them out, or leave out widths for \('
    with pytest.raises(ValueError, match=message):
        timm.create_model(TINY, widths=(0.9, 1.0), full_width=full_width, **_SHALLOW)


@pytest.mark.parametrize('arguments', [{'num_heads': 0}, {'head_size': 10**6}, {'img_size': (10**6, 32)}], ids=str)
def test_sizes_that_no_machine_can_build_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f'{next(iter(arguments))} must be whole, from 1 to '):
        timm.create_model(TINY, **arguments)


def test_another_size_of_images_for_all_widths(tmp_path: Path) -> None:
    model, timms = VIT.create(), VIT.narrow(0.25).eval()
    before = copy.deepcopy(model)
    model.set_width(0.5)
    model.set_input_size(img_size=(64, 48))
    assert model.width == 0.5
    x = images(size=64)[..., :48]
    model.set_width(0.25)
    position = before.state_dict()['pos_embed']
    timms.load_state_dict({**timms.state_dict(), 'pos_embed': position[..., :8]})
    timms.set_input_size(img_size=(64, 48))  # type: ignore[operator]
    assert_close_to(model.pos_embed, timms.pos_embed)  # type: ignore[arg-type]
    folder = save_model(model, tmp_path / 'whole')
    again: Any = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    for width in WIDTHS:
        model.set_width(width)
        again.set_width(width)
        assert torch.equal(predict(again, x), predict(model, x))
        assert_close_to(predict(model.extract(plain=True), x), embed(model, x))
    before.set_width(0.5)
    assert predict(before, images()).shape == (2, 10)  # a copy keeps its own size
    with model.train().at_width(0.25), sliced_leaves(model) as leaves:
        gradients = torch.autograd.grad(model(x).sum(), leaves)
    named = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    assert named['pos_embed'].shape == (1, 49, 8)


def test_another_size_of_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r'patch_size must be the \(8, 8\) .* got 4'):
        VIT.create().set_input_size(patch_size=4)


@pytest.mark.parametrize('member', [VIT, DINOV3], ids=name_of)
def test_images_of_any_size(member: Member) -> None:
    model, x = member.create(dynamic_img_size=True), images(size=48)
    for width in (0.25, 1.0):
        model.set_width(width)
        assert_close_to(predict(model.extract(width), x), embed(model, x))
        assert_close_to(predict(model.extract(width, plain=True), x), embed(model, x))


@pytest.mark.parametrize('member', [VIT, VIT_AVERAGE, DINOV2, DINOV3], ids=name_of)
def test_a_reset_pooling_is_saved_and_plain_timm_has_it(member: Member, tmp_path: Path) -> None:
    model, x = member.create(), images()
    model.reset_classifier(0, 'max')
    folder = save_width(model, 0.25, tmp_path / 'narrow')  # compares
    plain = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    model.set_width(0.25)
    assert_close_to(predict(plain, x), predict(model, x))
    assert not type(plain).__name__.startswith('Slim')
    again: Any = timm.create_model(f'local-dir:{save_model(model, tmp_path / "whole")}', pretrained=True).eval()
    again.set_width(0.25)
    assert_close_to(predict(again, x), predict(model, x))


@pytest.mark.parametrize('member', [DINOV2, DINOV3], ids=name_of)
def test_a_warm_start_at_another_size_of_images(member: Member, tmp_path: Path) -> None:
    """DINO's weights have no classifier; position embeddings are resampled as timm does."""
    args = {k: v for k, v in member.kwargs.items() if k not in ('head_size', 'img_size')} | {'embed_dim': 32}
    timms: Any = randomised(timm.create_model(member.plain_name, num_classes=0, img_size=48, **args)).eval()
    save_file(timms.state_dict(), tmp_path / 'model.safetensors')
    overlay = {'file': str(tmp_path / 'model.safetensors'), 'input_size': (3, 48, 48)}
    expected = timm.create_model(
        member.plain_name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=32, **args
    ).eval()
    model: Any = timm.create_model(
        member.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **member.kwargs
    ).eval()
    x, state = images(), expected.state_dict()
    assert_close_to(model.forward_features(x).detach(), expected.forward_features(x).detach())
    model.set_width(0.5)
    narrow = member.narrow(0.5).eval()
    narrow.load_state_dict({k: leading(state[k], t, 3 if '.qkv.' in k else 1) for k, t in narrow.state_dict().items()})
    assert_close_to(model.forward_features(x).detach(), narrow.forward_features(x).detach())  # type: ignore[operator]


def test_our_own_weights_at_another_size_of_images(tmp_path: Path) -> None:
    model, x = VIT.create(), images(size=64)
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    overlay = {'file': str(tmp_path / 'model.safetensors'), 'num_classes': 10, 'input_size': (3, 32, 32)}
    args = {**VIT.kwargs, 'num_classes': 10, 'img_size': 64}
    larger: Any = timm.create_model(VIT.name, pretrained=True, pretrained_cfg_overlay=overlay, **args).eval()
    model.set_input_size(img_size=(64, 64))
    for width in WIDTHS:
        larger.set_width(width)
        model.set_width(width)
        assert_close_to(predict(larger, x), predict(model, x))


def test_dinov3_recomputes_and_keeps_its_rotation() -> None:
    model, x = DINOV3.create().train(), images()
    model.set_width(0.5)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing()
    loss = model(x).square().sum()
    model.set_width(1.0)
    loss.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert_far_from(predict(model.eval(), x), predict(model, x.flip(-1)))
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules())


def test_features_only_gives_maps() -> None:
    features: Any = timm.create_model(DINOV3.name, features_only=True, out_indices=(0, 1), **DINOV3.kwargs).eval()
    features.model.set_width(0.5)
    assert [tuple(m.shape) for m in predict(features, images())] == [(2, 16, 4, 4)] * 2


def test_attention_is_counted_among_the_costs() -> None:
    tokens, heads, size, mlp = 17, 2, 8, 4
    channels = heads * size
    block = tokens * channels * channels * (3 + 1 + 2 * mlp) + 2 * tokens * tokens * channels
    dense = VIT.create(num_classes=0).extract(0.5)
    patches = 16 * 8 * 8 * 3 * channels
    assert model_cost(dense, (3, 32, 32)).macs == patches + VIT.kwargs['depth'] * block + 256 * channels
