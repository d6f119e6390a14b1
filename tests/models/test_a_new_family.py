"""A family that the zoo does not have, in the few lines that it takes: a ViT, whose root has tensors of its own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_close_to, assert_far_from, embed, images, predict, randomised
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import sfsc_timm
from sfsc_timm.models import Slimmable
from sfsc_timm.slim import sliced_leaves

WIDTHS = (0.25, 0.5, 1.0)


class SlimmableViT(Slimmable, VisionTransformer):
    """Heads keep their size; a narrow width has fewer of them."""

    classifier_name = 'head'
    block_pattern = r'blocks\.\d+'
    packed = {r'attn\.qkv\.(weight|bias)$': 3}  # noqa: RUF012  a ClassVar of the base
    neck_norm = False

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        sizes = {'embed_dim': int(64 * width), 'num_heads': int(8 * width)}
        return VisionTransformer(img_size=32, patch_size=8, depth=2, **{**kwargs, **sizes})


@pytest.fixture(params=['token', 'avg'])
def model(request: pytest.FixtureRequest) -> Any:
    options = {'global_pool': request.param, 'class_token': request.param == 'token'}
    return randomised(SlimmableViT.build(widths=WIDTHS, num_classes=5, embed_dim=24, **options)).eval()


def features_by_hand(model: Any, width: float, x: Tensor) -> Tensor:
    """Pooled features by timm's narrow ViT on slices of the state_dict."""
    twins: list[Any] = [SlimmableViT.dense(w, num_classes=0, **model._family_args).eval() for w in WIDTHS]
    index, stored, sliced = WIDTHS.index(width), model.state_dict(), {}
    norms = {name for name, module in twins[0].named_modules() if isinstance(module, nn.LayerNorm)}
    for key, own in twins[index].state_dict().items():
        if key.rpartition('.')[0] in norms:
            start = sum(twin.state_dict()[key].numel() for twin in twins[:index])
            sliced[key] = stored[key][start : start + own.numel()]
        elif 'qkv' in key:
            parts = [part[tuple(slice(0, n) for n in (len(own) // 3, *own.shape[1:]))] for part in stored[key].chunk(3)]
            sliced[key] = torch.cat(parts)
        else:
            sliced[key] = stored[key][tuple(slice(0, n) for n in own.shape)]
    twins[index].load_state_dict(sliced)
    return predict(twins[index], x)


def test_every_width_is_timms_narrow_model(model: Any) -> None:
    x = images()
    for width in WIDTHS:
        model.set_width(width)
        assert (model.num_features, model.width, model.embed_dim) == (int(64 * width), width, 24)
        assert model.pos_embed.shape[-1] == model.num_features
        features = features_by_hand(model, width, x)
        neck, state = model.neck.proj, model.state_dict()
        expected = features @ state['neck.proj.weight'][:, : features.shape[1]].T + neck.bias
        assert_close_to(embed(model, x), expected.detach())
        assert_close_to(predict(model, x), model.fc(expected).detach())
        assert_close_to(predict(model.extract(), x), expected.detach())
        assert type(model.extract()) is VisionTransformer


@pytest.mark.parametrize(
    'width,got',
    [
        (0.01, 'ZeroDivisionError.* in the constructor of a Attention'),  # no head is left
        (0.3, 'dim should be divisible by num_heads in the constructor of a Attention'),  # 19 channels, 2 heads
    ],
)
def test_a_width_too_small_is_told_to_the_familys_author(width: float, got: str) -> None:
    message = rf'SlimmableViT\.dense must build the model at width {width}, got .*{got}; choose a larger width, or let'
    with pytest.raises(ValueError, match=message):
        SlimmableViT.build(widths=(width, 1.0))


def test_groups_that_do_not_divide_are_told_with_the_layer() -> None:
    with pytest.raises(ValueError, match=r'SlimmableResNet\.dense .* width 0\.25, got .*divisible.* of a GroupNorm; '):
        timm.create_model('sfsc_resnet18', widths=(0.25, 1.0), norm_layer='groupnorm')


def test_tensors_of_the_root_are_never_stale(model: Any) -> None:
    model.set_width(0.5)
    before = predict(model, images())
    x = images()
    before = predict(model, x)
    with torch.no_grad():
        dict(model.named_parameters())['pos_embed'].mul_(2)
    assert_far_from(predict(model, x), before)
    assert_close_to(predict(copy.deepcopy(model), x), predict(model, x))
    assert_close_to(predict(pickle.loads(pickle.dumps(model)), x), predict(model, x))


def test_it_trains_on_leaves(model: Any) -> None:
    model.train()
    with model.at_width(0.25), sliced_leaves(model) as leaves:
        gradients = torch.autograd.grad(model(images()).square().sum(), leaves)
    named = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    assert named['pos_embed'].shape[-1] == 16
    assert named['blocks.0.attn.qkv.weight'].shape == (48, 16)
    model.set_grad_checkpointing()
    model(images()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_its_pooling_and_classifier_are_reset(model: Any) -> None:
    x = images()
    model.reset_classifier(7, global_pool='avg')
    assert predict(model, x).shape == (2, 7)
    model.reset_classifier(0, global_pool='')
    assert predict(model, x).ndim == 3
    model.reset_classifier(0, global_pool='avg')
    assert predict(model, x).shape == (2, 24)
    assert isinstance(model, SlimmableViT)


def test_it_is_scripted(model: Any) -> None:
    x = images()
    with model.at_width(0.5):
        assert_close_to(predict(torch.jit.script(model), x), predict(model, x))
    with pytest.raises(ValueError, match='width must be one of'):
        sfsc_timm.set_width(model, 0.75)
    assert timm.create_model('vit_tiny_patch16_224', num_classes=0).embed_dim == 192  # timm's own is left alone
