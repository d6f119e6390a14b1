"""Compiled equals eager, with one graph per width and mode."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from helpers.joint import assert_equal, batch, convnext, gradients, gradients_of, resnet, step

from sfsc_timm.tasks import SFSCTask

pytestmark = pytest.mark.usefixtures('dynamo')

SHORT: dict[str, Any] = {'depths': (1, 0, 0, 1), 'widths': (0.5, 1.0)}


class Counting:
    """Backend that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize('create', [partial(convnext, **SHORT), partial(resnet, widths=(0.5, 1.0))], ids=['ln', 'bn'])
def test_one_graph_per_width_and_one_for_evaluation(create: Any) -> None:
    images, target = batch()
    expected = gradients_of(SFSCTask(create()), images, target)
    task = SFSCTask(create(width=0.5))
    counting = Counting()
    task.compile(backend=counting)
    for _ in range(3):
        ours = gradients_of(task, images, target)
        assert_equal(ours, expected)
    assert counting.graphs == 2
    eval_model = task.get_eval_model()
    eval_model.eval()
    with torch.inference_mode():
        for _ in range(2):
            output = eval_model(images)
    assert counting.graphs == 3
    plain = task.trainable_module._orig_mod
    torch.testing.assert_close(output, plain(images).detach())
    eval_model.train()
    for _ in range(2):
        step(task, images, target)
    assert counting.graphs == 3
    assert all(not key.startswith('_orig_mod') for key in task.get_checkpoint_state()['state_dict'])


@pytest.mark.slow
def test_eight_widths_do_not_fall_back_to_eager() -> None:
    task = SFSCTask(convnext(widths=tuple(k / 8 for k in range(1, 9)), dims=(16, 32, 64, 64), depths=(1, 0, 0, 1)))
    counting = Counting()
    task.compile(backend=counting)
    for seed in range(2):
        step(task, *batch(seed=seed))
    assert counting.graphs == 8


@pytest.mark.parametrize('checkpointing', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_aot_autograd_equals_eager(checkpointing: bool) -> None:
    images, target = batch()
    model = convnext(**SHORT)
    expected = gradients_of(SFSCTask(model), images, target)
    model.zero_grad()
    model.set_grad_checkpointing(checkpointing)
    task = SFSCTask(model)
    task.compile(backend='aot_eager')
    assert_equal(gradients_of(task, images, target), expected)
    task.zero_grad()
    for part in zip(images.chunk(2), target.chunk(2), strict=True):
        step(task, *part, factor=0.5)
    assert_equal(gradients(task), expected)


def test_moving_average_is_compiled_too() -> None:
    task = SFSCTask(convnext(**SHORT))
    task.setup_ema(decay=0.5)
    counting = Counting()
    task.compile(backend=counting)
    task.compile_ema(backend=counting)
    step(task, *batch())
    task.update_ema()
    images, _ = batch()
    ema = task.get_eval_model(ema=True)
    with torch.no_grad():
        output = ema(images)
        torch.testing.assert_close(output, task.get_trainable_module(ema=True).module(images))
    assert counting.graphs == 3
