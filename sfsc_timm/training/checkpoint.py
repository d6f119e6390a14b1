"""Checkpoints in timm's format that also hold all it takes to go on bit for bit."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import unwrap_model

from .._files import replacing
from ..checkpoints.read import read_pickle
from ..tasks import SFSCTask
from .loop import Loop

__all__ = ['SECTION', 'going_on', 'load_checkpoint', 'origin_in', 'restore', 'save_checkpoint']

SECTION = 'sfsc_train'  # our own entry in timm's checkpoint


def save_checkpoint(
    path: Path, loop: Loop, args: dict[str, Any], arch: str, progress: dict[str, Any], metric: float | None = None
) -> None:
    """Writes a checkpoint whole or not at all; every process has to call it, the first one writes.

    Keys are those of timm's train.py (state_dict, state_dict_ema, arch, args, epoch, metric), so that what reads its
    .pth.tar reads this. Beside them stands the state of the loop, the optimizer's in it, and of all random generators.

    Args:
        path: The file.
        loop: What to save, between two steps.
        args: By which later commands make the model again.
        arch: timm's name of the model.
        progress: Rows of the log, what the run began with and the like, plain values.
        metric: Of the evaluation that it belongs to.

    Raises:
        FloatingPointError: A weight is not finite; what lies at `path` stays.
    """
    task = loop.task
    generators = _generators(task.device)
    if dist.is_initialized() and dist.get_rank():
        return
    model = unwrap_model(task.trainable_module)
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f'{len(broken)} weights are not finite after step {loop.updates}, among them {broken[0]}; lower lr or give '
            f'clip_grad. {str(path)!r} keeps the last good state.'
        )
    own = {'loop': loop.state_dict(), 'generators': generators, **progress}
    content = {
        'epoch': loop.epoch - 1,
        'arch': arch,
        'version': 2,
        'args': argparse.Namespace(**args),
        **task.get_checkpoint_state(),
        **(task.get_checkpoint_state(ema=True) if task.has_ema() else {}),
        'metric': metric,
        SECTION: own,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, *, only_looks: bool = False) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote; nothing in it is executed.

    Args:
        path: The file.
        only_looks: Whether tensors may stay on the disk until they are used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or another program's.
    """
    if not path.is_file():
        raise FileNotFoundError(f'nothing to resume at {str(path)!r}: there is no such file.')
    content = read_pickle(path, mmap=only_looks)
    if not isinstance(content, dict) or not isinstance(content.get(SECTION), dict):
        raise ValueError(
            f'{str(path)!r} is not of sfsc-timm train and cannot be resumed; --initial-checkpoint starts from its '
            'weights.'
        )
    return content


@contextmanager
def going_on(path: Path) -> Iterator[None]:
    """Names the checkpoint in the block that takes up its state, if that state is not all there.

    Raises:
        ValueError: An entry is missing, of another kind or does not fit.
    """
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise ValueError(
            f'{str(path)!r} does not hold what it takes to go on ({type(error).__name__}: {reason}); it is damaged, or '
            'of another version. Restore it, or start a new run.'
        ) from error


def origin_in(content: dict[str, Any]) -> dict[str, Any] | None:
    """What the run of a checkpoint began with; None in one from before this was kept."""
    origin: dict[str, Any] | None = content[SECTION].get('origin')
    return origin


def restore(content: dict[str, Any], loop: Loop) -> dict[str, Any]:
    """Brings a loop to where a checkpoint was taken; returns its progress.

    Raises:
        ValueError: It was taken on another number of processes.
        RuntimeError: A weight is not finite, or does not fit.
    """
    task: SFSCTask = loop.task
    own = dict(content[SECTION])
    for name, tensor in content['state_dict'].items():
        if not tensor.isfinite().all():
            raise RuntimeError(f'{name} is not finite')
        if not tensor.is_floating_point() and not name.endswith('num_batches_tracked'):
            raise TypeError(f'{name} holds {tensor.dtype}, weights are floating')
    task.load_checkpoint_state(content['state_dict'], content.get('task_state'))
    if task.has_ema():
        task.load_checkpoint_state(content['state_dict_ema'], ema=True)
    loop.load_state_dict(own.pop('loop'))
    generators = own.pop('generators')
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = dist.get_world_size() if dist.is_initialized() else 1
    if len(generators['cpu']) != world:
        raise ValueError(
            f'this run was on {len(generators["cpu"])} processes and can only be resumed on as many, got {world}.'
        )
    torch.set_rng_state(generators['cpu'][rank])
    if task.device.type == 'cuda' and 'cuda' in generators:
        torch.cuda.set_rng_state(generators['cuda'][rank], task.device)
    return own


def _generators(device: torch.device) -> dict[str, list[torch.Tensor]]:
    """States of the random generators of every process."""
    states = {'cpu': torch.get_rng_state()}
    if device.type == 'cuda':
        states['cuda'] = torch.cuda.get_rng_state(device)
    found: dict[str, list[torch.Tensor]] = {}
    for name, state in states.items():
        if not dist.is_initialized():
            found[name] = [state]
            continue
        sent = state.to(device)
        received = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
        dist.all_gather(received, sent)
        found[name] = [one.cpu() for one in received]
    return found
