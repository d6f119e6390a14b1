"""The training loop: every command that trains in this process goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import NativeScaler, dispatch_clip_grad, unwrap_model

from ..data import Batches
from ..tasks import SFSCTask
from .config import Fit
from .meter import Meter, figures

__all__ = ['Loop', 'fit']


class Loop:
    """Trains a task's model, epoch by epoch, and can stop and go on after any step.

    Args:
        task: What to train.
        batches: Training batches, shuffled by their sampler's epoch.
        config: How.
        on_step: Called after each optimizer step, with the loop: for a progress bar, a saved state, or to stop by an
            exception.

    Attributes:
        epoch: The epoch under way, or to begin with, from 0.
        batch: How many of its batches are done.
        updates: Optimizer steps done.
        total: Optimizer steps in all.
    """

    def __init__(
        self, task: SFSCTask, batches: Batches, config: Fit, on_step: Callable[[Loop], Any] | None = None
    ) -> None:
        self.task = task
        self.batches = batches
        self.config = config
        self.on_step = on_step
        self.epoch = self.batch = self.updates = 0
        self.updates_per_epoch = -(-len(batches) // config.grad_accum_steps)
        self.total = self.updates_per_epoch * config.epochs
        self.meter = Meter()
        model = unwrap_model(task.trainable_module)
        self.optimizer = create_optimizer_v2(
            model,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            layer_decay=config.layer_decay,
        )
        if task.extra_parameters:
            own = {'params': task.extra_parameters, 'weight_decay': config.weight_decay, 'lr': config.lr}
            self.optimizer.add_param_group(own)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            config.sched,
            config.epochs,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_epochs=config.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=self.updates_per_epoch,
        )
        self._autocast: Any = nullcontext
        self.scaler: Any = None
        if config.amp:
            dtype = getattr(torch, config.amp_dtype)
            self._autocast = lambda: torch.autocast(task.device.type, dtype)
            if dtype == torch.float16:
                self.scaler = NativeScaler(device=task.device.type)
        if config.model_ema:
            task.setup_ema(config.model_ema_decay, use_warmup=config.model_ema_warmup)
        self._set_rate()

    @property
    def lr(self) -> float:
        """The learning rate of now."""
        return float(self.optimizer.param_groups[0]['lr'])

    def epochs(self) -> Iterator[dict[str, float]]:
        """Trains to the end, from wherever the loop stands.

        Yields:
            One row of figures per epoch: epoch (from 1), lr, loss and uncertainty per width, conflict rate, gradient
            norm per width, cosine per pair of widths.

        Raises:
            FloatingPointError: The loss is not finite; the parameters are those before that step.
        """
        while self.epoch < self.config.epochs:
            yield self._train_epoch()

    def _train_epoch(self) -> dict[str, float]:
        self.task.trainable_module.train()
        if self.batches.sampler is not None:
            self.batches.sampler.set_epoch(self.epoch)
        self.batches.start_at(self.batch)
        accumulate, last = self.config.grad_accum_steps, len(self.batches)
        for data in self.batches:
            window = self.batch - self.batch % accumulate
            size = min(accumulate, last - window)
            is_end = self.batch + 1 == window + size
            result = self._forward(data, size, is_end)
            self.meter.add(figures(self.task, result))
            self.batch += 1
            if is_end:
                self.updates += 1
                self._set_rate()
                self.task.update_ema(step=self.updates)
                if self.on_step is not None:
                    self.on_step(self)
        self.epoch, self.batch = self.epoch + 1, 0
        row = {'epoch': float(self.epoch), 'lr': self.lr, **self.meter.means()}
        self.meter = Meter()
        return row

    def _forward(self, data: Any, window: int, is_end: bool) -> dict[str, Any]:
        """One batch: forward, backward, and a step of the optimizer at the end of an accumulation."""
        task, config = self.task, self.config
        images = data.images.to(task.device, non_blocking=True)
        with nullcontext() if is_end else task.no_sync():
            with self._autocast():
                result = task(images, data.identities.to(task.device, non_blocking=True))
            if not torch.isfinite(result['loss']):
                raise FloatingPointError(
                    f'the loss is {result["loss"].item()} at step {self.updates} (epoch {self.epoch + 1}), per width '
                    f'{[round(loss, 3) for loss in result["losses"].tolist()]}; lower lr, now {self.lr:.3g}, or give '
                    'clip_grad'
                )
            loss = result['loss'] / window
            parameters = task.get_clip_parameters(exclude_head='agc' in config.clip_mode)
            if self.scaler is not None:
                self.scaler(loss, self.optimizer, config.clip_grad, config.clip_mode, parameters, need_update=is_end)
            else:
                loss.backward()
                if is_end:
                    if config.clip_grad is not None:
                        dispatch_clip_grad(parameters, config.clip_grad, mode=config.clip_mode)
                    self.optimizer.step()
        if is_end:
            self.optimizer.zero_grad()
        return result

    def _set_rate(self) -> None:
        if self.scheduler is not None:
            self.scheduler.step_update(self.updates)

    def state_dict(self) -> dict[str, Any]:
        """Where the loop stands, apart from the task's own state; only between optimizer steps."""
        state = {
            'epoch': self.epoch,
            'batch': self.batch,
            'updates': self.updates,
            'optimizer': self.optimizer.state_dict(),
            'meter': {'sums': dict(self.meter.sums), 'steps': self.meter.steps},
        }
        if self.scaler is not None:
            state['scaler'] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.epoch, self.batch, self.updates = state['epoch'], state['batch'], state['updates']
        self.optimizer.load_state_dict(state['optimizer'])
        self.meter.sums, self.meter.steps = dict(state['meter']['sums']), state['meter']['steps']
        if self.scaler is not None:
            self.scaler.load_state_dict(state['scaler'])
        self._set_rate()


def fit(
    task: SFSCTask, batches: Batches, config: Fit, on_step: Callable[[Loop], Any] | None = None
) -> Iterator[dict[str, float]]:
    """Trains from beginning to end; see `Loop`.

    Args:
        task: What to train.
        batches: Training batches.
        config: How.
        on_step: Called after each optimizer step, with the loop.

    Yields:
        One row of figures per epoch.
    """
    yield from Loop(task, batches, config, on_step).epochs()
