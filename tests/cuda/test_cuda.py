"""What only an accelerator shows: mixed precision with a scaler, memory formats, compiled graphs, search on the device.

    pytest -m cuda tests/cuda

Skipped where there is none. SFSC_TIMM_DEVICE=cpu runs those of them that a CPU can run, to try the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.joint import assert_equal, batch, convnext, gradients, resnet, step
from helpers.zoo import CONVNEXT, RESNET, WIDTHS, Member, assert_close_to, images, name_of, predict
from torch import nn

from sfsc_timm.evaluation import GroundTruth, retrieval_metrics
from sfsc_timm.retrieval import search
from sfsc_timm.tasks import SFSCTask

DEVICE = os.environ.get('SFSC_TIMM_DEVICE', 'cuda')

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == 'cuda' and not torch.cuda.is_available(), reason='there is no CUDA device'),
]


def task_of(build: Any, **options: Any) -> SFSCTask:
    return SFSCTask(build().to(DEVICE), device=torch.device(DEVICE), verbose=False, **options)


def on_device(size: int = 8, pixels: int = 32) -> Any:
    return [tensor.to(DEVICE) for tensor in batch(size, pixels=pixels)]


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Without TF32, whose rounding would hide errors."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=name_of)
def test_every_width_gives_what_the_cpu_gives(member: Member) -> None:
    model, x = member.create(), images()
    expected = {}
    for width in WIDTHS:
        model.set_width(width)
        expected[width] = predict(model, x)
    model.to(DEVICE)
    for width in WIDTHS:
        model.set_width(width)
        for _ in range(2):
            assert_close_to(predict(model, x.to(DEVICE)).cpu(), expected[width], 1e-3)


@pytest.mark.parametrize('build', [resnet, convnext])
def test_a_step_gives_the_gradients_of_the_cpu(build: Any) -> None:
    cpu = SFSCTask(build().eval(), verbose=False)
    step(cpu, *batch(8))
    task = task_of(lambda: build().eval())
    step(task, *on_device())
    assert_equal([g.cpu() for g in gradients(task)], gradients(cpu), 1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_with_a_scaler_learns(dtype: torch.dtype) -> None:
    task = task_of(resnet)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype is torch.float16, init_scale=2.0**10)
    x, target = on_device(16)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, dtype):
            result = task(x, target)
        scaler.scale(result['loss']).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(task.trainable_module.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(result['loss']))
    assert all(p.isfinite().all() for p in task.trainable_module.parameters())
    assert losses[-1] < 0.7 * losses[0], losses


def test_a_step_that_overflows_is_skipped_and_the_scale_halves() -> None:
    task = task_of(resnet)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**60)
    before = [p.detach().clone() for p in task.trainable_module.parameters()]
    with torch.autocast(DEVICE, torch.float16):
        result = task(*on_device())
    scaler.scale(result['loss']).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**59
    assert all(map(torch.equal, before, task.trainable_module.parameters()))


def test_channels_last_gives_the_same() -> None:
    expected = task_of(lambda: resnet().eval())
    step(expected, *on_device())
    task = task_of(lambda: resnet().eval().to(memory_format=torch.channels_last))
    x, target = on_device()
    step(task, x.to(memory_format=torch.channels_last), target)
    assert_equal(gradients(task), gradients(expected), 1e-3)
    ours, theirs = task.trainable_module, expected.trainable_module
    for model in (ours, theirs):
        model.set_width(0.5)
    assert_close_to(predict(ours, x.to(memory_format=torch.channels_last)), predict(theirs, x), 1e-3)


@pytest.mark.usefixtures('dynamo')
def test_a_compiled_task_gives_the_same() -> None:
    expected = task_of(lambda: resnet().eval())
    step(expected, *on_device())
    task = task_of(lambda: resnet().eval())
    task.compile()
    step(task, *on_device())
    assert_equal(gradients(task), gradients(expected), 1e-3)


def test_sync_batchnorm_is_refused() -> None:
    """It knows one width only; torch's own conversion stops at the first norm."""
    with pytest.raises((TypeError, ValueError)):
        SFSCTask(nn.SyncBatchNorm.convert_sync_batchnorm(resnet()), verbose=False)


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_search_and_metrics_on_the_device(distance: Any) -> None:
    centres = torch.randn(40, 16)
    query, gallery = (centres.repeat(n, 1) + 0.7 * torch.randn(40 * n, 16) for n in (2, 6))
    truth = GroundTruth(torch.arange(40).repeat(2), torch.arange(40).repeat(6))
    values, items = search(query.to(DEVICE), gallery.to(DEVICE), 10, distance=distance)
    expected, wanted = search(query, gallery, 10, distance=distance)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
    assert (items == wanted).float().mean() > 0.99
    ours = retrieval_metrics(query.to(DEVICE), gallery.to(DEVICE), truth, distance=distance)
    theirs = retrieval_metrics(query, gallery, truth, distance=distance)
    assert ours.mAP == pytest.approx(theirs.mAP, abs=1e-3)
