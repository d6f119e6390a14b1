"""Neck, classifier and timm's usual arguments."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.zoo import (
    CONVNEXT,
    CONVOLUTIONAL,
    EFFICIENTNET,
    FAMILIES,
    RESNET,
    VIT,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    channels_of,
    embed,
    images,
    name_of,
    predict,
    slice_by_hand,
)
from torch import nn

from sfsc_timm.models import SlimmableResNet
from sfsc_timm.models._heads import CosineLinear


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_without_a_classifier_the_output_is_the_embedding(member: Member) -> None:
    model, x = member.create(embed_dim=24), images()
    bare = timm.create_model(member.name, num_classes=0, embed_dim=24, **member.kwargs).eval()
    missing, unexpected = bare.load_state_dict(model.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ['fc.weight', 'fc.bias'])
    assert isinstance(bare.fc, nn.Identity)
    for width in WIDTHS:
        model.set_width(width)
        bare.set_width(width)
        embedding = embed(model, x)
        assert embedding.shape == (2, 24)
        assert model.head_hidden_size == bare.head_hidden_size == 24
        assert_close_to(predict(bare, x), embedding)
        assert_close_to(predict(model, x), F.linear(embedding, model.fc.weight, model.fc.bias).detach())
        assert (embedding.norm(dim=1) - 1).abs().min() > 1e-3  # cosine belongs to evaluation


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('embed_dim, num_classes', [(24, 5), (24, 0), (0, 5), (0, 0)])
def test_embed_is_what_comes_before_the_classifier(member: Member, embed_dim: int, num_classes: int) -> None:
    model, x = member.create(embed_dim=embed_dim, num_classes=num_classes), images()
    for width in WIDTHS:
        with model.at_width(width), torch.no_grad():
            embedding = model.embed(x)
            assert embedding.shape == (2, embed_dim or model.num_features)
            assert_close_to(model.fc(embedding), predict(model, x))
            assert torch.equal(embedding, embed(model, x))


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('neck_norm', [True, False])
def test_the_neck_is_affine_in_evaluation(member: Member, neck_norm: bool) -> None:
    model = member.create(neck_norm=neck_norm)
    assert hasattr(model.neck, 'bn') == neck_norm
    assert (model.neck.proj.bias is None) == neck_norm
    for width in WIDTHS:
        model.set_width(width)
        a, b = torch.randn(2, 4, model.num_features)
        with torch.no_grad():
            assert_close_to(model.neck(3 * a - 2 * b), 3 * model.neck(a) - 2 * model.neck(b))


def test_families_choose_their_necks_norm() -> None:
    assert [hasattr(m.create().neck, 'bn') for m in FAMILIES] == [True, False, True, False]
    for member in (CONVNEXT, VIT):
        assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in member.create().modules())


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_without_a_neck_it_is_a_plain_classifier(member: Member) -> None:
    model, x = member.create(embed_dim=0), images()
    assert isinstance(model.neck, nn.Identity)
    assert not any(key.startswith('neck') for key in model.state_dict())
    twins = member.twins()
    for index, width in enumerate(WIDTHS):
        twins[index].load_state_dict(slice_by_hand(model.state_dict(), twins, index))
        features = predict(twins[index].eval(), x)
        model.set_width(width)
        assert model.head_hidden_size == features.shape[1]
        assert_close_to(embed(model, x), features)
        weight = model.state_dict()['fc.weight'][:, : features.shape[1]]
        assert_close_to(predict(model, x), features @ weight.T + model.state_dict()['fc.bias'])


def test_defaults() -> None:
    model = timm.create_model('sfsc_resnet34d', device='meta')
    assert (model.widths, model.width, model.embed_dim, model.num_classes) == (WIDTHS, 1.0, 256, 1000)
    assert type(model.fc) is nn.Linear
    assert model.fc.bias is not None


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('width', [0.25, 1.0])
def test_reset_classifier(member: Member, width: float) -> None:
    model, x = member.create(width=width).double(), images().double()
    embedding = embed(model, x)
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert predict(model, x).shape == (2, 7)
    assert model.fc.weight.dtype is torch.float64
    assert not model.fc.training
    assert model.width == width
    assert_close_to(embed(model, x), embedding)
    model.reset_classifier(0)
    assert_close_to(predict(model, x), embedding)
    model.train().reset_classifier(3)
    assert model.fc.training


@pytest.mark.parametrize('member', CONVOLUTIONAL, ids=name_of)
def test_reset_classifier_with_another_pooling(member: Member) -> None:
    model, x = member.create(width=0.5), images(size=64)
    by_average = embed(model, x)
    model.reset_classifier(10, 'max')
    assert_far_from(embed(model, x), by_average)
    model.reset_classifier(10, 'avg')
    assert_close_to(embed(model, x), by_average)
    model.reset_classifier(0, '')
    assert predict(model, x).shape == (2, model.num_features, 2, 2)
    with pytest.raises(ValueError, match="global_pool='' needs num_classes=0, got 5"):
        model.reset_classifier(5, '')


@pytest.mark.parametrize('member', [RESNET, EFFICIENTNET], ids=name_of)
def test_pooling_with_two_outputs_per_channel(member: Member) -> None:
    model, x = member.create(), images(size=64)
    model.reset_classifier(10, 'catavgmax')
    for width in WIDTHS:
        model.set_width(width)
        features = model.forward_features(x)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        assert model.head_hidden_size == 256
        assert_close_to(embed(model, x), predict(model.neck, pooled.detach()))
        assert predict(model, x).shape == (2, 10)
    model.reset_classifier(4, 'avg')
    assert predict(model, x).shape == (2, 4)


@pytest.mark.parametrize('member', CONVOLUTIONAL, ids=name_of)
def test_pooling_at_creation(member: Member) -> None:
    unpooled = member.create(num_classes=0, global_pool='')
    assert predict(unpooled, images(size=64)).shape == (2, unpooled.num_features, 2, 2)
    assert_far_from(
        *(embed(_loaded(member, pool), images(size=64, batch=1)) for pool in ('avg', 'max')),
    )


def _loaded(member: Member, pool: str) -> Any:
    torch.manual_seed(3)
    model = member.create(global_pool=pool)
    torch.manual_seed(4)
    return model


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_cosine_classifier(member: Member) -> None:
    model, x = member.create(classifier_type='cosine', cosine_scale=20.0), images()
    for width in WIDTHS:
        model.set_width(width)
        embedding, weight = embed(model, x), model.fc.weight.detach()
        cosines = (embedding @ weight.T) / (embedding.norm(dim=1)[:, None] * weight.norm(dim=1)[None])
        assert_close_to(predict(model, x), 20 * cosines)
    assert [name for name, _ in model.named_parameters()][-1] == 'fc.weight'
    assert 'fc.bias' not in model.state_dict()
    model.reset_classifier(3)
    assert isinstance(model.fc, CosineLinear)
    assert model.fc.scale == 20.0


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_other_input_channels(member: Member) -> None:
    model = member.create(in_chans=1)
    for width in WIDTHS:
        model.set_width(width)
        assert predict(model, images(channels=1)).shape == (2, 10)


@pytest.mark.parametrize('member', CONVOLUTIONAL, ids=name_of)
@pytest.mark.parametrize('output_stride', [8, 16])
def test_output_stride(member: Member, output_stride: int) -> None:
    model = member.create(output_stride=output_stride)
    for width in WIDTHS:
        model.set_width(width)
        with torch.no_grad():
            assert model.forward_features(images(size=64)).shape[-1] == 64 // output_stride
    assert model.feature_info[-1]['reduction'] == output_stride


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_dropout_and_drop_path_act_in_training_only(member: Member) -> None:
    x = images(batch=4)
    for kwargs in ({'drop_rate': 0.5}, {'drop_path_rate': 0.5}):
        model = member.create(**kwargs)
        for width in (0.25, 1.0):
            model.set_width(width)
            assert torch.equal(predict(model, x), predict(model, x))
            frozen = model.train()
            for m in frozen.modules():
                if isinstance(m, nn.modules.batchnorm._NormBase):
                    m.eval()
            assert_far_from(predict(frozen, x), predict(frozen, x))
            model.eval()


def test_device_and_dtype() -> None:
    model = RESNET.create(dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    for width in WIDTHS:
        model.set_width(width)
        assert predict(model, images().double()).dtype is torch.float64
    meta = timm.create_model(RESNET.name, device='meta', **RESNET.kwargs)
    assert {t.device.type for t in meta.state_dict().values()} == {'meta'}
    meta.to_empty(device='cpu')
    assert {t.device.type for t in meta.state_dict().values()} == {'cpu'}
    assert not any(t.device.type == 'meta' for m in meta.modules() for t in vars(m).values() if torch.is_tensor(t))


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_unknown_arguments_are_refused(member: Member) -> None:
    with pytest.raises(TypeError, match='no_such_argument'):
        timm.create_model(member.name, no_such_argument=1)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'embed_dim': -1}, 'embed_dim must be whole, from 0 to 16384, got -1'),
        ({'pretrained_cfg_overlay': 'x'}, "pretrained_cfg_overlay must be a mapping, such as .* got 'x'"),
        ({'num_classes': -1}, 'num_classes must be whole, from 0 to 100000000, got -1'),
        ({'classifier_type': 'arc'}, "classifier_type must be 'linear' or 'cosine', got 'arc'"),
        ({'classifier_type': 'cosine', 'cosine_scale': 0.0}, 'scale must be positive, got 0.0'),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RESNET.create(**kwargs)


def test_the_constructor_points_to_the_factory() -> None:
    with pytest.raises(TypeError, match=r"timm.create_model\('sfsc_...'\) or SlimmableResNet.build"):
        SlimmableResNet()


def test_stages_whose_structure_depends_on_the_width_are_refused() -> None:
    """48 channels behind a stem of 64 need a shortcut convolution; 16 behind 16 would not have one."""
    with pytest.raises(ValueError, match=r'twin of width 0\.25 must have the structure of the full model'):
        timm.create_model('sfsc_resnet18', channels=(48, 96, 192, 384), device='meta')


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_pruning_to_earlier_stages(member: Member) -> None:
    model, x = member.create(), images()
    model.set_width(0.5)
    expected = model.forward_intermediates(x, indices=[1], intermediates_only=True)[0].detach()
    model.prune_intermediate_layers([1], prune_norm=True, prune_head=True)
    for width in WIDTHS:
        model.set_width(width)
        features = model.forward_features(x).detach()
        assert channels_of(features) == model.num_features
        if width == 0.5:
            maps = features if features.ndim == 4 else features[:, 1:].mT.unflatten(2, (4, 4))
            assert_close_to(maps, expected)
