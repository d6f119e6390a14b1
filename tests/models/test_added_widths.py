"""Widths that are added to a model that was made, and trained, without them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.utils.parametrizations as parametrizations
from helpers import checkpoints
from helpers.checkpoints import ARGS, DATA_CONFIG
from helpers.zoo import assert_close_to, assert_far_from
from torch import Tensor, nn

from sfsc_timm.checkpoints import compatibility_id, load_checkpoint_model, save_model, save_width, space_id
from sfsc_timm.models import estimate_statistics
from sfsc_timm.slim import PrivateCut, slim_states

RESNET = {'channels': (16, 32, 48, 64), 'layers': (1, 1, 1, 1), 'stem_width': 8, 'embed_dim': 16}
VIT = {'img_size': 32, 'depth': 2, 'num_heads': 6, 'head_size': 8, 'embed_dim': 16}
CONVNEXT = {'dims': (16, 32, 48, 64), 'depths': (1, 1, 1, 1), 'embed_dim': 16}


def tiny(**kwargs: Any) -> Any:
    return checkpoints.tiny(layers=(1, 1, 1, 1), **kwargs)


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def outputs(model: Any, x: Tensor) -> dict[float, Tensor]:
    found = {}
    with torch.no_grad():
        for width in model.widths:
            with model.at_width(width):
                found[width] = model(x)
    return found


def varied(name: str, **kwargs: Any) -> Any:
    """An untrained model whose parameters of all widths differ."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=5, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def assert_equal(found: dict[float, Tensor], expected: dict[float, Tensor]) -> None:
    for width, tensor in expected.items():
        assert torch.equal(found[width], tensor), width


@pytest.mark.parametrize(
    'name,kwargs,width',
    [
        ('sfsc_resnet18d', RESNET, 0.4),
        (
            'sfsc_resnet18d',
            {**RESNET, 'widths': (1.0,), 'classifier_type': 'cosine'},
            0.5,
        ),
        ('sfsc_convnext_atto', {**CONVNEXT, 'embed_dims': (8, 16)}, 0.6),
        ('sfsc_vit_tiny_patch16_224', VIT, 0.7),
        ('sfsc_vit_tiny_patch16_224', {**VIT, 'widths': (1.0,)}, 0.5),
    ],
    ids=['resnet', 'resnet of one width', 'convnext', 'vit', 'vit of one width'],
)
def test_it_is_the_model_that_is_made_with_all_widths(name: str, kwargs: dict[str, Any], width: float) -> None:
    model, x = varied(name, **kwargs), images(2)
    before, active = outputs(model, x), model.widths[0]
    shared = {n: p for n, p in model.named_parameters() if not is_private(model, n)}
    model.set_width(active)
    model.add_width(width)
    assert (width in model.widths, model.width, len(model.widths)) == (True, active, len(before) + 1)
    found = outputs(model, x)
    assert_equal(found, before)
    assert all(dict(model.named_parameters())[n] is p for n, p in shared.items())
    made: Any = timm.create_model(name, num_classes=5, **{**kwargs, 'widths': model.widths}).eval()
    made.load_state_dict(model.state_dict())
    assert_equal(outputs(made, x), found)
    made.set_width(active)
    assert repr(made) == repr(model)
    assert [i['num_chs_by_width'] for i in made.feature_info] == [i['num_chs_by_width'] for i in model.feature_info]
    dense = model.extract(width, head=True)
    assert_close_to(dense(x).detach(), found[width])
    with model.at_width(width):
        assert (model.num_features, model.head_hidden_size) == (dense.num_features, made_at(made, width))
    with pytest.raises(RuntimeError, match='size mismatch'):
        timm.create_model(name, num_classes=5, **kwargs).load_state_dict(model.state_dict())


def made_at(model: Any, width: float) -> int:
    with model.at_width(width):
        return int(model.head_hidden_size)


def is_private(model: nn.Module, name: str) -> bool:
    path, _, tensor = name.rpartition('.')
    state = model.get_submodule(path).__dict__.get('_slim')
    return state is not None and isinstance(state.cuts.get(tensor), PrivateCut)


def test_norms_start_as_slices_of_the_next_wider_ones() -> None:
    model = tiny()
    model.add_width(0.6)
    looked_at = 0
    for child, state in slim_states(model):
        for name, cut in state.cuts.items():
            stored = child._parameters.get(name, child._buffers.get(name))
            if isinstance(cut, PrivateCut) and stored is not None:
                own, wider = cut.view(stored, 2), cut.view(stored, 3)
                assert torch.equal(own, wider[: len(own)] if own.ndim else wider)
                looked_at += own.ndim > 0
    assert looked_at > 40
    model.add_width(0.4)
    assert model.widths == (0.25, 0.4, 0.5, 0.6, 0.75, 1.0)


def test_it_trains_and_is_copied() -> None:
    model = tiny().train()
    model.add_width(0.4)
    copy = deepcopy(model)
    for width in model.widths:
        with copy.at_width(width):
            copy(images()).square().sum().backward()
    assert all(p.grad is not None for p in copy.parameters())
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    assert_far_from(outputs(copy.eval(), images())[0.4], outputs(model.eval(), images())[0.4])


def test_files_know_it(tmp_path: Path) -> None:
    model, x = tiny(), images()
    space, identity = space_id(model), compatibility_id(model)
    model.add_width(0.4)
    assert space_id(model) == space
    assert compatibility_id(model) != identity
    save_model(model, tmp_path / 'whole', data_config=DATA_CONFIG)
    save_width(model, 0.4, tmp_path / 'w0.4', data_config=DATA_CONFIG)
    whole, one = (load_checkpoint_model(tmp_path / name) for name in ('whole', 'w0.4'))
    assert (whole.widths, one.widths) == (model.widths, (0.4,))
    assert whole.space == one.space == space
    assert whole.digest(0.4) == one.digest(0.4)
    assert_equal(outputs(whole.model, x), outputs(model, x))
    with torch.no_grad(), model.at_width(0.4):
        assert_close_to(one.model.embed(x), model.embed(x))
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    kwargs = {**ARGS, 'layers': (1, 1, 1, 1), 'num_classes': 5, 'widths': model.widths}
    loaded = load_checkpoint_model(tmp_path / 'weights.pth', model='sfsc_resnet18d', model_kwargs=kwargs)
    assert_equal(outputs(loaded.model, x), outputs(model, x))


@pytest.mark.parametrize('width', [0.0, -0.5, 1.0, 1.5, float('nan'), '0.4', True, None])
def test_what_is_no_width(width: Any) -> None:
    with pytest.raises(ValueError, match=r'width must be a number above 0 and below 1, got .*nothing is wider than 1'):
        tiny().add_width(width)


def pruned() -> Any:
    model = tiny()
    model.prune_intermediate_layers([1])
    return model


def parametrized() -> Any:
    model = tiny()
    parametrizations.weight_norm(model.layer4[0].conv1)
    return model


@pytest.mark.parametrize(
    'create,width,message',
    [
        (tiny, 0.5, r'width must be one that the model does not have, got 0\.5 of \(0\.25, 0\.5, 0\.75, 1\.0\)'),
        (tiny, 0.4999999999, 'width must be one that the model does not have'),
        (lambda: tiny(channels=(8, 8, 8, 64)), 0.51, r'got 0\.51, which is the same as 0\.5 once channels'),
        (lambda: timm.create_model('sfsc_vit_tiny_patch16_224', **VIT), 0.52, 'different numbers of heads'),
        (pruned, 0.4, r"must have all parts .* got none at 'layer2"),
        (parametrized, 0.4, 'must be a tensor of the model for all widths'),
    ],
    ids=['known', 'nearly known', 'same channels', 'same heads', 'pruned', 'parametrized'],
)
def test_what_cannot_be_added(create: Any, width: float, message: str) -> None:
    model = create()
    widths, names = model.widths, list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        model.add_width(width)
    assert (model.widths, list(model.state_dict())) == (widths, names)


def test_statistics_are_those_of_all_images() -> None:
    """Against the mean and variance of what the first norm is given, batches by their size, single images left out."""
    model, x = tiny(), images(41) * 2 + 1
    model.add_width(0.4)
    model.set_width(0.75)
    model.layer1.train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    others = outputs(deepcopy(model).eval(), x)
    estimate_statistics(model, iter(x.split(20)), [0.4])
    assert (model.width, model.training, model.layer1.training, model.conv1[1].training) == (0.75, False, True, False)
    assert model.conv1[1].momentum == 0.1
    model.eval()
    with model.at_width(0.4), torch.no_grad():
        first = [model.conv1[0](part) for part in x[:40].split(20)]
        mean = torch.stack([f.mean((0, 2, 3)) for f in first]).mean(0)
        variance = torch.stack([f.transpose(0, 1).flatten(1).var(1) for f in first]).mean(0)
        torch.testing.assert_close(model.conv1[1].running_mean, mean)
        torch.testing.assert_close(model.conv1[1].running_var, variance)
        assert_far_from(model(x), others[0.4])
    for width in (0.25, 0.5, 0.75, 1.0):
        assert torch.equal(outputs(model, x)[width], others[width])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, state[name])}
    assert changed == {
        n for n in state if n.rpartition('.')[2] in ('running_mean', 'running_var', 'num_batches_tracked')
    }
    estimate_statistics(model, [x[:10], x[10:40]], [0.4])
    with model.at_width(0.4), torch.no_grad():
        torch.testing.assert_close(model.conv1[1].running_mean, model.conv1[0](x[:40]).mean((0, 2, 3)))


def test_statistics_of_nothing() -> None:
    model = tiny()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match='a batch of at least 2 images, got none'):
        estimate_statistics(model, [images(1)])
    with pytest.raises(ValueError, match='width must be one of'):
        estimate_statistics(model, [images()], [0.4])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    vit = timm.create_model('sfsc_vit_tiny_patch16_224', **VIT)
    estimate_statistics(vit, [images()])  # normalises each image by itself
