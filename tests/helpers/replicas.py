"""What each of two processes does in test_distributed.py."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import distribute_bn
from torch import Tensor

from helpers.joint import Opposing, batch, convnext, gradients, resnet, step
from sfsc_timm.tasks import SFSCTask

WORLD = 2


def own_share(rank: int, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return images.chunk(WORLD)[rank], target.chunk(WORLD)[rank]


def whole_batch(rank: int) -> tuple[Tensor, Tensor]:
    return own_share(rank, *batch(8))


def prepared(model: Any, *args: Any, **kwargs: Any) -> SFSCTask:
    return SFSCTask(model, *args, **kwargs).prepare_distributed(
        device_ids=[torch.device('cpu')], broadcast_buffers=True
    )


def one_batch(rank: int) -> list[Tensor]:
    """The weights and the seed are the first process's, whatever the others began with."""
    model = convnext()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 + rank)
    task = prepared(model, Opposing(), seed=3 + rank)
    step(task, *whole_batch(rank))
    return gradients(task)


def accumulated(rank: int, uses_no_sync: bool) -> list[Tensor]:
    task = prepared(convnext(), Opposing(), seed=3)
    images, target = whole_batch(rank)
    for index, part in enumerate(zip(images.chunk(2), target.chunk(2), strict=True)):
        with task.no_sync() if uses_no_sync and index == 0 else nullcontext():
            step(task, *part, factor=0.5)
    return gradients(task)


def half_precision(rank: int) -> list[Tensor]:
    task = prepared(convnext(), aggregation='sum')
    with torch.autocast('cpu', torch.float16):
        loss = task(*whole_batch(rank))['loss']
    loss.backward()
    return gradients(task)


def five_steps(rank: int) -> dict[str, Tensor]:
    """With statistics, momentum, accumulation and a moving average; each process draws its own data."""
    torch.manual_seed(rank)
    task = prepared(resnet(drop_path_rate=0.1))
    task.setup_ema(decay=0.9)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for index in range(10):
        with task.no_sync() if index % 2 == 0 else nullcontext():
            step(task, *batch(seed=100 * rank + index), factor=0.5)
        if index % 2:
            optimizer.step()
            optimizer.zero_grad()
            task.update_ema()
    distribute_bn(task.trainable_module, WORLD, reduce=True)
    distribute_bn(task.get_trainable_module(ema=True), WORLD, reduce=True)
    state = task.get_checkpoint_state()['state_dict']
    return {**state, **{f'ema.{k}': v for k, v in task.get_checkpoint_state(ema=True)['state_dict_ema'].items()}}


def different_factors(rank: int) -> str:
    task = prepared(convnext())
    try:
        step(task, *whole_batch(rank), factor=1.0 + rank)
    except RuntimeError as error:
        return str(error)
    return ''


def buffers_follow_the_first(rank: int) -> bool:
    model = resnet()
    task = prepared(model)
    step(task, *batch(seed=rank))
    first = [buffer.clone() for buffer in model.buffers()]
    task(*batch(seed=rank))
    gathered: list[Any] = [None] * WORLD
    dist.all_gather_object(gathered, first)
    return any(not torch.equal(a, b) for a, b in zip(*gathered, strict=True))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=WORLD)
    results = {
        'one_batch': one_batch(rank),
        'with_no_sync': accumulated(rank, True),
        'without_no_sync': accumulated(rank, False),
        'half_precision': half_precision(rank),
        'five_steps': five_steps(rank),
        'different_factors': different_factors(rank),
        'statistics_differ_between_steps': buffers_follow_the_first(rank),
    }
    torch.save(results, Path(folder) / f'{rank}.pt')
    dist.destroy_process_group()
