"""A model whose widths have necks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_close_to

from sfsc_timm.checkpoints import load_checkpoint_model, save_width
from sfsc_timm.models import sort_channels, start_from
from sfsc_timm.tasks import SFSCTask


def make(own_necks: bool = True, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    args = {'channels': (16, 32, 32, 64), 'stem_width': 8, 'embed_dim': 12, 'num_classes': 3, **kwargs}
    return timm.create_model('sfsc_resnet18d', own_necks=own_necks, **args).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_they_start_as_the_leading_columns_of_the_full_one(images: torch.Tensor) -> None:
    own, shared = make(), make(own_necks=False)
    start_from(own, shared)
    for width in own.widths:
        with own.at_width(width), shared.at_width(width):
            assert own.neck.proj.weight.shape == shared.neck.proj.weight.shape
            assert_close_to(own(images), shared(images))


def test_each_is_changed_alone(images: torch.Tensor) -> None:
    model = make()
    with torch.no_grad():
        before = {width: _embed(model, width, images) for width in model.widths}
        with model.at_width(0.5):
            model.neck.proj.weight.mul_(2)
        model.refresh()
        after = {width: _embed(model, width, images) for width in model.widths}
    assert {width for width in model.widths if not torch.equal(before[width], after[width])} == {0.5}
    assert_close_to(model.extract(0.5)(images), after[0.5])


def _embed(model: Any, width: float, images: torch.Tensor) -> torch.Tensor:
    with model.at_width(width):
        found: torch.Tensor = model.embed(images)
    return found


@pytest.mark.parametrize('neck_norm', [False, True])
def test_sorted_channels_leave_the_full_width_as_it_is(images: torch.Tensor, neck_norm: bool) -> None:
    model = make(neck_norm=neck_norm)
    before = model(images)
    sort_channels(model, images)
    assert_close_to(model(images), before)
    with model.at_width(1.0):
        full = model.neck.proj.weight.detach().clone()
    with model.at_width(0.25):
        narrow = model.neck.proj.weight
        assert torch.equal(narrow, full[:, : narrow.shape[1]])


def test_a_step_gives_each_the_gradient_of_its_width_alone(images: torch.Tensor) -> None:
    model = make(neck_norm=False)
    labels = torch.tensor([0, 1, 2, 0])
    expected = []
    for width in model.widths:
        dense: Any = model.extract(width, head=True)
        loss = torch.nn.functional.cross_entropy(dense(images), labels)
        expected += torch.autograd.grad(loss, dense.get_classifier()[0].weight)
    task = SFSCTask(model, 'cross_entropy', aggregation='pcgrad', verbose=False)
    task(images, labels)['loss'].backward()
    found = dict(model.named_parameters())['neck.proj.weight'].grad
    assert found is not None
    assert_close_to(found, torch.cat([gradient.flatten() for gradient in expected]))


def test_a_width_is_saved_and_loaded(tmp_path: Path, images: torch.Tensor) -> None:
    model = make()
    with torch.no_grad(), model.at_width(0.5):
        model.neck.proj.weight.mul_(1.5)
    folder = save_width(model, 0.5, tmp_path / 'w0.5')
    with torch.no_grad():
        assert_close_to(load_checkpoint_model(folder).model.eval()(images), _embed(model, 0.5, images))


@pytest.mark.parametrize('neck_norm', [False, True])
def test_an_added_width_begins_with_the_leading_columns_of_the_next_wider_neck(
    neck_norm: bool, images: torch.Tensor
) -> None:
    model = make(neck_norm=neck_norm)
    with torch.no_grad():
        for factor, width in enumerate(model.widths, start=1):
            with model.at_width(width):
                model.neck.proj.weight.mul_(factor)
        model.refresh()
        before = {width: _embed(model, width, images) for width in model.widths}
        model.add_width(0.6)
        with model.at_width(0.75):
            wider = model.neck.proj.weight.clone()
        with model.at_width(0.6):
            assert torch.equal(model.neck.proj.weight, wider[:, : model.neck.proj.weight.shape[1]])
            model.neck.proj.weight.mul_(2)
        model.refresh()
        assert all(torch.equal(_embed(model, width, images), found) for width, found in before.items())
        made = make(neck_norm=neck_norm, widths=model.widths)
        made.load_state_dict(model.state_dict())
        assert_close_to(_embed(made, 0.6, images), _embed(model, 0.6, images))
        assert_close_to(model.extract(0.6)(images), _embed(model, 0.6, images))


def test_without_a_neck_there_is_nothing_to_own() -> None:
    with pytest.raises(ValueError, match='own_necks must be left out where there is no neck'):
        make(embed_dim=0)
