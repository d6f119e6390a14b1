"""Steps that train widths between a model's own ones, too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from helpers.joint import assert_equal, batch, convnext, gradients, resnet, step
from torch import Tensor

from sfsc_timm.losses import Aligned, CrossEntropyLoss
from sfsc_timm.losses.objective import cosine_distance
from sfsc_timm.models import start_from
from sfsc_timm.recipes import create_recipe
from sfsc_timm.slim import PrivateCut, slim_states
from sfsc_timm.tasks import SFSCTask
from sfsc_timm.tasks._outputs import run_with_embedding
from sfsc_timm.tasks._random_widths import RandomWidths

WIDE = {'channels': (16, 32, 48, 64)}  # with as many different networks between the widths


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighths alone to choose from: each is built to be looked at."""
    monkeypatch.setattr('sfsc_timm.models._added._STEPS', 8)


def widths_of(drawn: dict[int, list[Any]]) -> list[tuple[int, float]]:
    """Number of the next wider own width, and the width, of each draw."""
    return [
        (wider, one.keywords['like'].widths[one.keywords['index']]) for wider, many in drawn.items() for one in many
    ]


def fold(model: Any, width: float) -> None:
    """Adds the gradients of an added width's norms to those of the next wider width, of which they were slices."""
    index = model.widths.index(width)
    for child, state in slim_states(model):
        for name, cut in state.cuts.items():
            parameter = child._parameters.get(name)
            if parameter is None or not isinstance(cut, PrivateCut):
                continue
            own, wider = (cut.view(parameter.grad, k) for k in (index, index + 1))
            wider[: len(own)] += own
            segments = [cut.view(parameter.grad, k).reshape(-1) for k in range(len(cut.shapes)) if k != index]
            parameter.grad = None
            parameter.summed = torch.cat(segments)  # type: ignore[attr-defined]


def summed(model: Any) -> list[Tensor]:
    return [getattr(p, 'summed', p.grad) for p in model.parameters()]


@pytest.mark.parametrize('create', [resnet, convnext], ids=['resnet', 'convnext'])
def test_a_drawn_width_learns_as_one_that_was_added(create: Any) -> None:
    """Against plain autograd on a model that has that width, with norms that start as slices of the next wider's."""
    model = create()
    images, target = batch(8)
    task = SFSCTask(model, 'cross_entropy', aggregation='sum', random_widths=1, verbose=False)
    [(wider, width)] = widths_of(RandomWidths(model, 1, 0).draw(0))
    twin = deepcopy(model)
    twin.add_width(width)
    assert twin.widths[wider] == width
    result = step(task, images, target)
    total = 0.0
    for each in twin.widths:
        with twin.at_width(each):
            loss = CrossEntropyLoss()(twin(images), target)
            loss.backward()
            total += loss.item()
    fold(twin, width)
    assert_equal(gradients(model), summed(twin))
    assert float(result['loss']) == pytest.approx(total, rel=1e-5)
    assert result['losses'].shape == (4,)
    plain = create()
    step(SFSCTask(plain, 'cross_entropy', aggregation='sum', verbose=False), images, target)
    for name, buffer in plain.named_buffers():  # the running statistics of the own widths count their own forwards
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer)
    assert {name: m.__dict__.get('in_channels') for name, m in model.named_modules()} == {
        name: m.__dict__.get('in_channels') for name, m in plain.named_modules()
    }


def test_it_looks_up_to_the_full_width_as_smaller_ones_do() -> None:
    model = resnet(**WIDE)
    whole = resnet(widths=(1.0,), **WIDE).eval()
    start_from(model, whole)
    images, target = batch(8)
    objective = Aligned(CrossEntropyLoss(), distill=2.0)
    task = SFSCTask(model, objective, aggregation='sum', reference=whole, composed=0.5, random_widths=2, verbose=False)
    drawn = widths_of(RandomWidths(model, 2, 0).draw(0))
    twin = deepcopy(model)
    torch.manual_seed(3)
    result = step(task, images, target)
    torch.manual_seed(3)
    from sfsc_timm.tasks._compose import compose

    more = torch.cat([images, compose(images, 4)])
    expected = float(result['losses'].sum())
    for _, width in drawn:
        copy = deepcopy(twin)
        copy.add_width(width)
        with copy.at_width(width):
            logits, embedding = run_with_embedding(copy, more)
        reference = whole.embed(more)
        expected += float(CrossEntropyLoss()(logits[:8], target))
        expected += 2.0 * float(
            cosine_distance(embedding[:8], reference[:8]) + cosine_distance(embedding[8:], reference[8:])
        )
    assert float(result['loss']) == pytest.approx(expected, rel=1e-4)


def test_gradient_checkpointing_and_half_precision() -> None:
    """Blocks are recomputed in backward, when other widths have run."""
    found = []
    for checkpointing in (False, True):
        model = convnext(dims=(16, 32, 48, 64))
        model.set_grad_checkpointing(checkpointing)
        task = SFSCTask(model, 'cross_entropy', random_widths=3, verbose=False)
        with torch.autocast('cpu', torch.float16):
            result = task(*batch(4))
        result['loss'].backward()
        found.append(gradients(model))
    assert_equal(*found)


def test_draws_are_those_of_the_step_and_of_no_other() -> None:
    model = resnet(**WIDE)
    one, other = RandomWidths(model, 2, 0), RandomWidths(model, 2, 0)
    draws = [sorted(widths_of(one.draw(update))) for update in range(30)]
    assert draws[7:] == [sorted(widths_of(other.draw(update))) for update in range(7, 30)]
    assert draws != [sorted(widths_of(RandomWidths(model, 2, 1).draw(update))) for update in range(30)]
    assert all(len({width for _, width in drawn}) == 2 for drawn in draws)
    for drawn in draws:
        for wider, width in drawn:
            assert model.widths[wider - 1] < width < model.widths[wider]
    assert {wider for drawn in draws for wider, _ in drawn} == {1, 2, 3}


def test_evaluation_draws_nothing() -> None:
    images, target = batch()
    with torch.no_grad():
        found = [
            float(SFSCTask(resnet(**WIDE), random_widths=count, verbose=False).eval()(images, target)['loss'])
            for count in (0, 2)
        ]
    assert found[0] == found[1]


def test_recipes() -> None:
    model = resnet(**WIDE)
    assert create_recipe('sum', random_widths=2).create_task(model, verbose=False)._random_widths is not None
    lone = create_recipe('sfsc', random_widths=2).create_task(resnet(widths=(1.0,)), verbose=False)
    assert lone._random_widths is None  # a full width that is trained alone first
    with pytest.raises(ValueError, match=r"random_widths must be left out of 'bct', got 1"):
        create_recipe('bct', random_widths=1)


def test_what_is_refused() -> None:
    model = resnet()
    with pytest.raises(ValueError, match='random_widths must be at least 0, got -1'):
        SFSCTask(model, random_widths=-1)
    with pytest.raises(ValueError, match=r'random_widths must be at most \d+, as many networks'):
        SFSCTask(model, random_widths=1000)
    with pytest.raises(RuntimeError, match='compile must be left out with random_widths'):
        SFSCTask(model, random_widths=1, verbose=False).compile()
    task = SFSCTask(model, verbose=False)
    model.add_width(0.625)
    with pytest.raises(RuntimeError, match=r'make the task, and its optimizer, after model\.add_width'):
        task(*batch())
