"""The plain training loop: every command that trains in this process goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from ..data import Batches
from ..tasks import SFSCTask

__all__ = ['Fit', 'fit']


@dataclass
class Fit:
    """How to train.

    Attributes:
        epochs: Passes over the training set.
        opt: Optimizer, by timm's name.
        lr: Peak learning rate.
        weight_decay: On weights; norm parameters and biases have none (timm's rule).
        momentum: Of SGD.
        warmup_epochs: Epochs of linear warm-up before the cosine.
        clip_grad: Largest norm of the gradient, None for no clipping.
    """

    epochs: int = 20
    opt: str = 'sgd'
    lr: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: int = 1
    clip_grad: float | None = None


@dataclass
class _Meter:
    """Means of what the steps of an epoch report."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, values: dict[str, float]) -> None:
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: total / self.steps for name, total in self.sums.items()}


def fit(
    task: SFSCTask,
    batches: Batches,
    config: Fit,
    on_step: Callable[[int, int], Any] | None = None,
) -> Iterator[dict[str, float]]:
    """Trains the task's model, epoch by epoch.

    Args:
        task: What to train.
        batches: Training batches, shuffled by their sampler's epoch.
        config: How.
        on_step: Called with (step, steps in all) after each optimizer step, for a progress bar.

    Yields:
        One row of figures per epoch: epoch, lr, loss and uncertainty per width, conflict rate, gradient norm per width.

    Raises:
        FloatingPointError: If the loss is not finite; the parameters are those before that step.
    """
    model = task.trainable_module
    optimizer = create_optimizer_v2(
        model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
    )
    steps = len(batches)
    total = steps * config.epochs
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=total,
        warmup_t=config.warmup_epochs * steps,
        warmup_lr_init=config.lr / 100,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    scheduler.step_update(0)
    done = 0
    for epoch in range(config.epochs):
        model.train()
        if batches.sampler is not None:
            batches.sampler.set_epoch(epoch)
        meter = _Meter()
        for batch in batches:
            result = task(batch.images.to(task.device), batch.identities.to(task.device))
            if not torch.isfinite(result['loss']):
                raise FloatingPointError(
                    f'the loss is {float(result["loss"])} at step {done} (epoch {epoch}), per width '
                    f'{result["losses"].tolist()}; lower lr, now {optimizer.param_groups[0]["lr"]:.3g}, or clip_grad'
                )
            result['loss'].backward()
            if config.clip_grad is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            scheduler.step_update(done)
            meter.add(_figures(task, result))
            if on_step is not None:
                on_step(done, total)
        yield {'epoch': float(epoch + 1), 'lr': optimizer.param_groups[0]['lr'], **meter.means()}


def _figures(task: SFSCTask, result: dict[str, Any]) -> dict[str, float]:
    """What a step reports, by column of the log."""
    figures = {}
    for width, loss, uncertainty in zip(task.widths, result['losses'], result['uncertainty'], strict=True):
        figures[f'loss_{width:g}'] = float(loss)
        figures[f'uncertainty_{width:g}'] = float(uncertainty)
    projection = task.last_projection
    if projection is not None:
        figures['conflict_rate'] = projection.conflict_rate
        for width, norm in zip(task.widths, projection.norms.tolist(), strict=True):
            figures[f'gradnorm_{width:g}'] = norm
    return figures
