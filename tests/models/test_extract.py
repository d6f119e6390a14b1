"""Dense models of one width: equal, independent, timm's own classes, truly smaller."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    BOTTLENECK,
    CONVNEXT,
    CONVNEXT_DEFAULT,
    EFFICIENTNET,
    FAMILIES,
    IDENTITY_SHORTCUT,
    MOBILENET,
    RESNET,
    RESNET_DEFAULT,
    SMALL_BOTTLENECK,
    WIDTHS,
    Member,
    assert_close_to,
    channels_of,
    embed,
    images,
    name_of,
    predict,
    randomised,
)
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sfsc_timm
from sfsc_timm.models import SlimmableResNet
from sfsc_timm.slim import densify


def flops(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        predict(model, x)
    return counter.get_total_flops()


def assert_nothing_of_ours(model: nn.Module) -> None:
    assert not any(cls.__module__.startswith('sfsc_timm') for m in model.modules() for cls in type(m).__mro__)
    assert not any('_slim' in vars(m) for m in model.modules())


def assert_own_storage(dense: nn.Module, model: nn.Module) -> None:
    theirs = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    for key, tensor in dense.state_dict().items():
        assert tensor.untyped_storage().data_ptr() not in theirs, key
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, key
        assert tensor.is_contiguous()


@pytest.mark.parametrize('member', [*FAMILIES, SMALL_BOTTLENECK], ids=name_of)
def test_each_width_is_equal_independent_and_smaller(member: Member, tmp_path: Path) -> None:
    model, x = member.create(), images()
    sizes = []
    for width in WIDTHS:
        dense, with_head = model.extract(width), model.extract(width, head=True)
        assert model.width == 1.0
        with model.at_width(width):
            embedding, logits = embed(model, x), predict(model, x)
            cost = flops(model, x)
        assert_close_to(predict(dense, x), embedding)
        assert_close_to(predict(with_head, x), logits)
        assert not dense.training
        for other in (dense, with_head):
            assert_nothing_of_ours(other)
            assert_own_storage(other, model)
            assert type(other) is type(member.narrow(1.0))
            assert {type(p) for p in other.parameters()} == {nn.Parameter}
        assert (dense.num_classes, with_head.num_classes) == (256, 10)
        assert dense.num_features == channels_of(dense.forward_features(x))  # type: ignore[operator]
        twin = sum(p.numel() for p in member.narrow(width).parameters())
        parameters = sum(p.numel() for p in dense.parameters())
        assert parameters == twin + 256 * dense.head_hidden_size + 256  # neck folded into one linear layer with bias
        assert flops(dense, x) == cost - 2 * len(x) * 256 * 10  # no classifier
        save_file(dense.state_dict(), tmp_path / 'dense.safetensors')
        sizes.append((parameters, flops(dense, x), (tmp_path / 'dense.safetensors').stat().st_size))
        with torch.no_grad():
            for tensor in (*dense.parameters(), *dense.buffers()):
                tensor.zero_()
        with model.at_width(width):
            assert torch.equal(embed(model, x), embedding)
    for narrow, wide in itertools.pairwise(sizes):
        assert all(a < b for a, b in zip(narrow, wide, strict=True))
    assert sizes[0][0] < 0.3 * sizes[-1][0]


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_the_active_width_is_the_default(member: Member) -> None:
    model, x = member.create(width=0.5), images()
    assert_close_to(predict(model.extract(), x), embed(model, x))
    assert_close_to(predict(sfsc_timm.extract(model, 0.5), x), embed(model, x))


@pytest.mark.parametrize('member', [*FAMILIES, MOBILENET], ids=name_of)
def test_a_dense_model_is_a_whole_timm_model(member: Member) -> None:
    """Its information is its own, it trains, its head can be replaced, its features can be asked for."""
    model: Any = member.create()
    dense, x = model.extract(0.5), images()
    features = dense.forward_features(x)
    assert dense.num_features == channels_of(features)
    assert [m.shape[1] for m in dense.forward_intermediates(x)[1]] == [i['num_chs'] for i in dense.feature_info]
    model.set_width(0.25)
    assert dense.num_features == channels_of(features)
    dense.train()(images(batch=4)).sum().backward()
    assert all(p.grad is not None for p in dense.parameters())
    dense.reset_classifier(3)
    assert predict(dense.eval(), x).shape == (2, 3)
    dense.reset_classifier(0)
    assert predict(dense, x).shape == (2, dense.head_hidden_size)


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
@pytest.mark.parametrize('kwargs', [{'embed_dim': 0}, {'neck_norm': True}, {'neck_norm': False}], ids=str)
def test_every_kind_of_neck(member: Member, kwargs: dict[str, Any]) -> None:
    model, x = member.create(**kwargs), images()
    for width in (0.5, 1.0):
        model.set_width(width)
        assert_close_to(predict(model.extract(), x), embed(model, x))
        assert_close_to(predict(model.extract(head=True), x), predict(model, x))


def test_other_heads() -> None:
    cosine, x = RESNET.create(classifier_type='cosine', width=0.5), images(size=64)
    assert_close_to(predict(cosine.extract(head=True), x), predict(cosine, x))
    assert_nothing_of_ours(cosine.extract())
    bare = RESNET.create(num_classes=0, width=0.5)
    assert_close_to(predict(bare.extract(), x), predict(bare, x))
    assert bare.extract().num_classes == 256
    unpooled = RESNET.create(num_classes=0, global_pool='', width=0.5)
    assert_close_to(predict(unpooled.extract(), x), predict(unpooled, x))
    with pytest.raises(ValueError, match='head=True needs a classifier'):
        bare.extract(head=True)
    with pytest.raises(ValueError, match='width must be one of'):
        bare.extract(0.3)


def test_extraction_in_training_and_with_copies_in_use() -> None:
    model, x = RESNET.create(width=0.5), images()
    expected = embed(model, x)
    assert_close_to(predict(model.extract(), x), expected)
    model.train()
    dense = model.extract()
    assert model.training
    assert not dense.training
    assert_close_to(predict(dense, x), expected)
    with torch.inference_mode():
        assert_close_to(model.extract()(x), expected)


def test_half_precision() -> None:
    model = RESNET.create(width=0.5).to(torch.bfloat16)
    dense = model.extract()
    assert {p.dtype for p in dense.parameters()} == {torch.bfloat16}


# plain=True: what timm makes without us.

PLAIN = [
    *[(RESNET, width) for width in WIDTHS],
    *[(CONVNEXT, width) for width in WIDTHS],
    (RESNET_DEFAULT, 0.25),
    (CONVNEXT_DEFAULT, 0.75),
    (EFFICIENTNET, 1.0),
    *[(IDENTITY_SHORTCUT, width) for width in WIDTHS],
    (BOTTLENECK, 0.25),
    *[(SMALL_BOTTLENECK, width) for width in WIDTHS],
]


@pytest.fixture(scope='module')
def models() -> dict[str, Any]:
    """Each member once."""
    torch.manual_seed(0)
    members = {id(m): m for m, _ in PLAIN}
    created = {key: m.create(num_classes=0) for key, m in members.items()}
    # Plain timm makes an EfficientNet of these multipliers under no name: take the default one.
    created[id(EFFICIENTNET)] = randomised(timm.create_model('sfsc_efficientnet_b0', num_classes=0)).eval()
    return {str(key): model for key, model in created.items()}


LOADER = """
import sys
import timm, torch
from pathlib import Path
from safetensors.torch import load_file
for folder in sorted(Path(sys.argv[1]).iterdir()):
    saved = load_file(folder / 'io' / 'tensors.safetensors')
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    with torch.no_grad():
        output = model(saved['input'])
    error = (output - saved['output']).abs().max() / saved['output'].abs().max()
    assert output.shape == saved['output'].shape and error <= 1e-5, (folder.name, error)
    print(folder.name, type(model).__name__)
assert not any(name.split('.')[0] == 'sfsc_timm' for name in sys.modules)
"""


def test_plain_models_are_loaded_by_timm_alone(models: dict[str, Any], tmp_path: Path) -> None:
    """A process that never imports this package gets the embedding of each width from a folder."""
    x = images(size=64)
    names = []
    for member, width in PLAIN:
        model = models[str(id(member))]
        model.set_width(width)
        expected = predict(model, x)
        plain = model.extract(plain=True)
        assert_nothing_of_ours(plain)
        assert_own_storage(plain, model)
        assert_close_to(predict(plain, x), expected)
        names.append(f'{len(names):02d}-{member.name}-{width}')
        folder = tmp_path / names[-1]
        save_for_hf(plain, str(folder), safe_serialization=True)
        (folder / 'io').mkdir()
        save_file({'input': x, 'output': expected.contiguous()}, folder / 'io' / 'tensors.safetensors')
    script = tmp_path.parent / 'loader.py'
    script.write_text(LOADER)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path.parent
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(names)


@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=name_of)
def test_plain_forms_without_padding_cost_the_same(member: Member) -> None:
    model, x = member.create(), images()
    for width in WIDTHS:
        exact, plain = model.extract(width), model.extract(width, plain=True)
        assert {k: t.shape for k, t in plain.state_dict().items()} == {
            k: t.shape for k, t in exact.state_dict().items()
        }
        assert flops(plain, x) == flops(exact, x)


def test_plain_forms_with_a_padded_stem_cost_more(models: dict[str, Any]) -> None:
    model, x = models[str(id(SMALL_BOTTLENECK))], images()
    for width in (0.25, 0.5):
        exact, plain = model.extract(width), model.extract(width, plain=True)
        assert plain.conv1.out_channels == 64
        assert exact.conv1.out_channels == 64 * width
        assert flops(exact, x) < flops(plain, x)
    for member in (BOTTLENECK, SMALL_BOTTLENECK):  # one channel more keeps the shortcut convolution
        assert models[str(id(member))].extract(0.25, plain=True).layer1[0].conv1.out_channels == 17


def test_plain_timm_cannot_express_everything(models: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'plain timm cannot express an EfficientNet at width 0\.5'):
        models[str(id(EFFICIENTNET))].extract(0.5, plain=True)
    with pytest.raises(ValueError, match='plain=True gives the embedding only'):
        RESNET.create().extract(0.5, head=True, plain=True)
    unnamed = SlimmableResNet.build(**RESNET_ARGS)
    assert unnamed.extract(0.5).num_classes == 256
    with pytest.raises(ValueError, match=r'plain=True needs a model of timm\.create_model'):
        unnamed.extract(0.5, plain=True)


def test_plain_timm_has_no_efficientnet_of_other_multipliers() -> None:
    with pytest.raises(ValueError, match='plain timm cannot express'):
        EFFICIENTNET.create().extract(1.0, plain=True)


RESNET_ARGS: dict[str, Any] = {
    'block': timm.models.resnet.BasicBlock,
    'layers': (1, 1, 1, 1),
    'channels': (16, 32, 64, 128),
}


@pytest.mark.parametrize('pool', ['max', 'catavgmax'])
@pytest.mark.parametrize('how', ['creation', 'reset'])
def test_plain_forms_pool_as_the_model_does(pool: str, how: str) -> None:
    x = images(size=64)
    if how == 'creation':
        model = RESNET.create(global_pool=pool)
    else:
        model = RESNET.create()
        model.reset_classifier(10, pool)
    model.set_width(0.5)
    assert_close_to(predict(model.extract(plain=True), x), embed(model, x))


def test_plain_form_without_a_neck() -> None:
    model, x = RESNET.create(embed_dim=0, width=0.5), images()
    assert_close_to(predict(model.extract(plain=True), x), embed(model, x))


def test_plain_forms_of_other_arguments() -> None:
    x = images(channels=1, size=64)
    model = RESNET.create(in_chans=1, output_stride=16, drop_path_rate=0.1, width=0.5)
    plain = model.extract(plain=True)
    assert_close_to(predict(plain, x), embed(model, x))
    assert plain.forward_features(x).shape[-1] == 4


@pytest.mark.parametrize('member', [RESNET, EFFICIENTNET, CONVNEXT], ids=name_of)
@pytest.mark.parametrize('width', [0.25, 0.5])
def test_a_network_of_its_own(member: Member, width: float) -> None:
    """`full_width` builds what a sub-model is, as a network that has this one width."""
    model, x = member.create(), images()
    lone = member.create(widths=(1.0,), full_width=width)
    assert lone.widths == (1.0,)
    with model.at_width(width):
        state = densify(model).state_dict()
        expected = predict(model, x)
    own = lone.state_dict()
    lone.load_state_dict({key: tensor.reshape(own[key].shape) for key, tensor in state.items()})
    assert_close_to(predict(lone, x), expected)
    nested = member.create(widths=(0.5, 1.0), full_width=0.5)
    shapes = [p.shape for p in nested.extract(0.5).parameters()]
    assert shapes == [p.shape for p in model.extract(0.25).parameters()]
    if member is not EFFICIENTNET:
        assert_close_to(predict(lone.extract(plain=True), x), predict(model.extract(width, plain=True), x))


@pytest.mark.parametrize('full_width', [0.0, -0.5, 1.5, float('nan')])
def test_a_full_width_out_of_range(full_width: float) -> None:
    with pytest.raises(ValueError, match=r'full_width must be in \(0, 1\]'):
        timm.create_model('sfsc_resnet18', full_width=full_width)
