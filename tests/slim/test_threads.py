"""One model, many threads: one fixed width is shared, a switch during another thread's run raises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch
from helpers.zoo import RESNET, assert_close_to, images, predict
from torch import Tensor, nn

THREADS = 8


@pytest.fixture
def model() -> Any:
    return RESNET.create(width=0.5)


def together(work: Callable[[int], Any]) -> list[Any]:
    """Results of all threads, which start at the same moment."""
    barrier = Barrier(THREADS)

    def start(index: int) -> Any:
        torch.set_num_threads(1)
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


@pytest.mark.parametrize('grad', [False, True])
def test_threads_share_one_width(model: Any, grad: bool) -> None:
    x = [images() for _ in range(THREADS)]
    expected = [predict(model, each) for each in x]

    def work(index: int) -> list[Tensor]:
        with torch.set_grad_enabled(grad):
            return [model(x[index]).detach() for _ in range(10)]

    for index, outputs in enumerate(together(work)):
        for output in outputs:
            assert_close_to(output, expected[index])
    assert not [m for m in model.modules() if 'weight' in vars(m)]


def test_a_model_for_each_thread_is_the_way_to_several_widths(model: Any) -> None:
    x = images()
    widths = [model.widths[index % 4] for index in range(THREADS)]
    expected = []
    for width in widths:
        with model.at_width(width):
            expected.append(predict(model, x))
    models = [model.extract(width, head=True) for width in widths]
    for outputs, wanted in zip(together(lambda i: [predict(models[i], x) for _ in range(5)]), expected, strict=True):
        for output in outputs:
            assert_close_to(output, wanted)


def test_several_widths_on_one_model_are_right_or_raise(model: Any) -> None:
    x = images()
    expected = {}
    for width in model.widths:
        with model.at_width(width):
            expected[width] = predict(model, x)

    def attempt(width: float) -> str:
        try:
            with model.at_width(width):
                output = predict(model, x)
        except RuntimeError as error:
            return str(error)
        assert_close_to(output, expected[width])
        return ''

    answers = together(lambda index: {attempt(model.widths[index % 4]) for _ in range(40)})
    refused = {answer for each in answers for answer in each if answer}
    assert any('' in each for each in answers)
    assert all('model.extract(width)' in answer for answer in refused)


class _Pause(nn.Module):
    """Lets a test act in the middle of a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = Event(), Event()

    def forward(self, x: Tensor) -> Tensor:
        self.reached.set()
        assert self.go_on.wait(30)
        return x


@pytest.fixture
def paused(model: Any) -> Any:
    """The model while another thread is in the middle of its forward; and what that gives in the end."""
    pause, outputs = _Pause(), []
    x = images()
    expected = predict(model, x)
    model.layer3 = nn.Sequential(pause, *model.layer3)
    thread = Thread(target=lambda: outputs.append(predict(model, x)))
    thread.start()
    assert pause.reached.wait(30)
    yield model
    pause.go_on.set()
    thread.join(30)
    assert_close_to(outputs[0], expected)
    assert model.width == 0.5
    model.set_width(0.25)


def test_a_switch_during_a_forward_raises(paused: Any) -> None:
    with pytest.raises(RuntimeError, match='the width must stay as it is while another thread runs the model'):
        paused.set_width(0.25)
    with pytest.raises(RuntimeError, match='got a switch'), paused.at_width(1.0):
        pass
    paused.set_width(0.5)  # nothing to switch


def test_gradients_during_another_threads_evaluation_raise(paused: Any) -> None:
    with pytest.raises(RuntimeError, match='gradients must not be recorded while another thread evaluates'):
        paused(images())


def test_a_switch_during_anothers_block_raises(model: Any) -> None:
    inside, go_on = Event(), Event()

    def hold() -> None:
        with model.at_width(0.5):
            inside.set()
            assert go_on.wait(30)

    thread = Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(RuntimeError, match='another thread'):
        model.set_width(1.0)
    go_on.set()
    thread.join(30)
    model.set_width(1.0)
