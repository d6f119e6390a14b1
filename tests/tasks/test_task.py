"""The task's gradient against plain autograd, and its answers to what it cannot train."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import timm
import torch
from helpers.joint import CLASSES, Opposing, assert_equal, batch, convnext, gradients, plain_gradients, resnet, step
from torch import Tensor, nn

from sfsc_timm.losses import CrossEntropyLoss, EvidentialLoss
from sfsc_timm.slim import PrivateCut, slim_state
from sfsc_timm.tasks import SFSCTask


def test_sum_is_plain_autograd_of_the_summed_losses() -> None:
    model = resnet()
    images, target = batch()
    task = SFSCTask(model, 'cross_entropy', aggregation='sum')
    step(task, images, target)
    ours = gradients(model)
    expected = [sum(parts) for parts in zip(*_no_none(model, images, target, CrossEntropyLoss()), strict=True)]
    assert_equal(ours, expected)


def _no_none(model: Any, images: Tensor, target: Tensor, criterion: Any) -> list[list[Tensor]]:
    widths = plain_gradients(model, images, target, criterion)
    return [
        [torch.zeros_like(p) if g is None else g for g, p in zip(width, model.parameters(), strict=True)]
        for width in widths
    ]


def test_pcgrad_is_the_textbook_algorithm_on_full_size_gradients() -> None:
    """With two widths no random order enters, so a naive loop in float64 needs nothing of ours."""
    model = convnext(widths=(0.5, 1.0)).double()
    images, target = batch()
    images = images.double()
    result = step(SFSCTask(model, Opposing(2), scope='global'), images, target)
    private = _private(model)
    vectors = _no_none(model, images, target, Opposing(2))
    flat = [torch.cat([g.flatten() for g, own in zip(width, private, strict=True) if not own]) for width in vectors]
    product = flat[0] @ flat[1]
    assert product < 0
    projected = [
        flat[0] - product / flat[1].square().sum() * flat[1],
        flat[1] - product / flat[0].square().sum() * flat[0],
    ]
    shared = iter(
        (projected[0] + projected[1]).split(
            [p.numel() for p, o in zip(model.parameters(), private, strict=True) if not o]
        )
    )
    expected = [
        vectors[0][j] + vectors[1][j] if own else next(shared).view(p.shape)
        for j, (p, own) in enumerate(zip(model.parameters(), private, strict=True))
    ]
    assert_equal(gradients(model), expected, 1e-10)
    assert result['conflict_rate'] == 1.0
    torch.testing.assert_close(result['gradient_norms'], torch.stack([v.norm() for v in flat]))
    inside = torch.cat(
        [(a != 0).flatten() for a, own in zip(vectors[0], private, strict=True) if not own]
    )  # where width 0.5 has gradients, both have
    cosine = product / flat[0].norm() / flat[1][inside].norm()
    torch.testing.assert_close(result['cosines'][0, 1], cosine)


def _private(model: nn.Module) -> list[bool]:
    found = []
    for module in model.modules():
        state = slim_state(module)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                found.append(state is not None and isinstance(state.cuts.get(name), PrivateCut))
    return found


def test_result_is_what_each_width_gives_alone() -> None:
    model = convnext(width=0.5)
    images, target = batch()
    task = SFSCTask(model)
    result = task(images, target)
    assert set(result) == {'loss', 'output', 'losses', 'uncertainty'}
    result['loss'].backward()
    assert {'conflict_rate', 'cosines', 'gradient_norms'} < set(result)
    criterion = EvidentialLoss()
    for index, width in enumerate(model.widths):
        with model.at_width(width), torch.no_grad():
            logits = model(images)
            loss, uncertainty = criterion.with_uncertainty(logits, target)
            torch.testing.assert_close(result['losses'][index], loss)
            torch.testing.assert_close(result['uncertainty'][index], uncertainty.mean())
            if width == 0.5:
                torch.testing.assert_close(result['output'], logits)
    torch.testing.assert_close(result['loss'].detach(), result['losses'].sum())
    assert model.width == 0.5
    assert not result['output'].requires_grad


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any) -> None:
    model = convnext()
    task = SFSCTask(model)
    images, target = batch()
    with mode():
        result = task(images, target)
    assert not result['loss'].requires_grad
    assert not gradients(model)
    torch.testing.assert_close(result['losses'], task(images, target)['losses'])


def test_frozen_parameters_have_no_gradient_and_the_others_theirs() -> None:
    model = convnext()
    images, target = batch()
    task = SFSCTask(model)
    step(task, images, target)
    free = dict(zip([name for name, _ in model.named_parameters()], gradients(model), strict=True))
    task.zero_grad()
    model.stem.requires_grad_(False)
    model.fc.bias.requires_grad_(False)
    SFSCTask(model, aggregation='sum')  # must not mind
    step(task, images, target)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name.startswith('stem.') or name == 'fc.bias'), name
    assert free.keys() == {name for name, _ in model.named_parameters()}
    frozen = SFSCTask(model, aggregation='sum')
    frozen.zero_grad()
    step(frozen, images, target)
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.requires_grad_(True)
    frozen.zero_grad()
    step(frozen, images, target)
    all_of_them = dict(model.named_parameters())
    assert_equal(list(ours.values()), [all_of_them[name].grad for name in ours])


def test_losses_may_wait_for_their_backward() -> None:
    model = convnext()
    task = SFSCTask(model, aggregation='sum')
    first, second = task(*batch(seed=1)), task(*batch(seed=2))
    (first['loss'] + 2 * second['loss']).backward()
    together = gradients(model)
    task.zero_grad()
    step(task, *batch(seed=1))
    step(task, *batch(seed=2), factor=2.0)
    assert_equal(gradients(model), together)


def test_a_result_frees_its_memory_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        result = SFSCTask(convnext())(*batch())
        watched = weakref.ref(result)
        del result
        assert watched() is None
    finally:
        gc.enable()


def test_a_second_backward_is_refused() -> None:
    task = SFSCTask(convnext())
    loss = task(*batch())['loss']
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='call the task again'):
        loss.backward()


def test_second_order_is_refused() -> None:
    task = SFSCTask(convnext())
    with pytest.raises(RuntimeError, match='adahessian'):
        task(*batch())['loss'].backward(create_graph=True)


def test_models_that_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match='slimmable model, got ResNet'):
        SFSCTask(timm.create_model('resnet18', num_classes=CLASSES))
    with pytest.raises(ValueError, match='num_classes=0'):
        SFSCTask(convnext(num_classes=0))
    with pytest.raises(ValueError, match='parameter that requires a gradient, got none'):
        SFSCTask(convnext().requires_grad_(False))


@pytest.mark.parametrize(
    'options',
    [
        {'criterion': 'hinge'},
        {'criterion': nn.CrossEntropyLoss()},
        {'criterion': EvidentialLoss(reduction='none')},
        {'criterion': EvidentialLoss(), 'criterion_kwargs': {'evidence': 'exp'}},
        {'criterion_kwargs': {'evidence': 'tanh'}},
        {'aggregation': 'average'},
        {'scope': 'network'},
        {'kl_annealing_steps': -1},
    ],
    ids=str,
)
def test_options_that_do_not_exist(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'Found|got'):
        SFSCTask(convnext(), **options)


def test_state_of_the_random_orders_resumes() -> None:
    def train(task: SFSCTask, steps: int) -> None:
        for seed in range(steps):
            task.zero_grad()
            step(task, *batch(seed=seed))

    task = SFSCTask(convnext(), Opposing())
    train(task, 2)
    task.zero_grad()
    state = task.get_checkpoint_state()
    train(task, 2)
    resumed = SFSCTask(convnext(), Opposing(), seed=99)
    resumed.load_checkpoint_state(state['state_dict'], state['task_state'])
    train(resumed, 2)
    for ours, theirs in zip(gradients(resumed), gradients(task), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="SFSCTask's"):
        resumed.load_task_state({'other': 1})
    resumed.load_task_state(None)
    assert task.get_task_state(ema=True) == {}


def test_the_regulariser_is_let_in_by_updates_not_by_micro_steps() -> None:
    options: dict[str, Any] = {'criterion_kwargs': {'kl_weight': 1.0}, 'kl_annealing_steps': 2}
    task = SFSCTask(convnext(), **options)
    images, target = batch()
    seen = []
    for _ in range(4):
        task.zero_grad()
        step(task, images, target, 0.5)
        seen.append(float(step(task, images, target, 0.5)['losses'].sum()))
    without = float(SFSCTask(convnext())(images, target)['losses'].sum())
    whole = float(SFSCTask(convnext(), criterion_kwargs={'kl_weight': 1.0})(images, target)['losses'].sum())
    assert seen == pytest.approx([without, (without + whole) / 2, whole, whole])
