"""The SFSC recipe as a timm task: all widths in one step, their gradients projected."""

from __future__ import annotations

from typing import Any

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from ..gradients import GradientAccumulator, GradientProjection, Projection
from ..layers import sliced_leaves
from ..losses import SubModelLoss, create_loss
from ..models import at_width, get_widths
from ._slices import slice_layout

__all__ = ['SFSCTask']


class SFSCTask(TrainingTask):
    """Trains all widths of a slimmable model jointly, so that their embeddings are compatible.

    `task(input, target)` runs every width; after `result['loss'].backward()` the aggregated gradient stands in `.grad`.

    Two designs, by what the loop's scaling needs:

    * By default each width's gradients are taken right after its forward. One width's activations are alive at a time,
      so the peak is the widest width's own plus the kept gradients at slice size (1.875 x the parameters for widths
      0.25, 0.5, 0.75, 1.0). The factor that `backward` brings along (accumulation, a scale) enters afterwards, in the
      gradients' own precision.
    * Under float16 autocast a gradient scaler's factor has to enter before gradients are rounded, so all graphs are
      kept until `backward` (the activations of all widths: 2.5 x those of the widest).

    Gradients accumulate over micro-steps per width, and `.grad` is always the projection of all that has accumulated
    since it was last reset or changed by someone else (`zero_grad`). It is overwritten, not added to.

    Args:
        model: Slimmable model with a classifier.
        criterion: Loss of each sub-model: 'evidential' (SFSC's, from uncertainty), 'cross_entropy', or a module.
        criterion_kwargs: Options of the loss, if it is given by name.
        aggregation: 'pcgrad' (SFSC's projection), 'sum', or any weighting that `GradientProjection` takes.
        scope: Over which parameters gradients are compared: 'shell', 'global' or 'layer'.
        seed: Of the projection's random orders; the same on every process.
        device: Device of the task.
        dtype: Type of the task.
        verbose: Log what is trained.

    Raises:
        ValueError: If `model` is not slimmable or has no classifier, or an option is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: str | SubModelLoss = 'evidential',
        criterion_kwargs: dict[str, Any] | None = None,
        aggregation: Any = 'pcgrad',
        scope: str = 'shell',
        seed: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.widths = get_widths(model)
        if not getattr(model, 'num_classes', 1):
            raise ValueError('model must have a classifier to be trained with, got num_classes=0')
        self.trainable_module = model
        if isinstance(criterion, str):
            criterion = create_loss(criterion, **(criterion_kwargs or {}))
        self.criterion = criterion.to(device=self.device)
        self._parameters_in_order = list(model.parameters())
        self._layout = slice_layout(model)
        generator = torch.Generator().manual_seed(seed)
        self.projection = GradientProjection(self._layout, aggregation, scope, generator)
        self._accumulator = GradientAccumulator(self._layout)
        self._written: list[tuple[Tensor, int]] = []
        self.last_projection: Projection | None = None

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Any]:  # noqa: A002
        """Runs every width on a batch.

        Args:
            input: Images (B, C, H, W).
            target: Class indices (B,) or class probabilities (B, classes).

        Returns:
            'loss': sum of the widths' losses; its `backward` puts the aggregated gradient into `.grad`.
            'output': logits (B, classes) at the width that was active at the call.
            'losses' and 'uncertainty': per width, ascending, (widths,), detached.
        """
        keep_graphs = torch.is_autocast_enabled(input.device.type) and (
            torch.get_autocast_dtype(input.device.type) == torch.float16
        )
        steps: list[_WidthStep] = []
        losses, uncertainties, output = [], [], None
        active = self.trainable_module.width
        for width in self.widths:
            with at_width(self.trainable_module, width), sliced_leaves(self.trainable_module) as leaves:
                logits = self.trainable_module(input)
                loss, uncertainty = self.criterion.with_uncertainty(logits, target)
                if torch.is_grad_enabled():
                    steps.append(_WidthStep(loss, leaves))
                    if not keep_graphs:
                        steps[-1].differentiate()
            losses.append(loss.detach())
            uncertainties.append(uncertainty.mean())
            if width == active:
                output = logits.detach()
        per_width = torch.stack(losses)
        total = per_width.sum()
        if steps:
            anchor = torch.zeros((), device=total.device, requires_grad=True)
            total = _Aggregated.apply(anchor, total, self, steps)
        return {
            'loss': total,
            'output': output,
            'losses': per_width,
            'uncertainty': torch.stack(uncertainties),
        }

    def aggregate(self, steps: list[_WidthStep], factor: Tensor) -> None:
        """Adds a micro-step's gradients, times `factor`, and writes the projection of the sum to `.grad`."""
        if not self._is_continued():
            self._accumulator.clear()
        for index, step in enumerate(steps):
            self._accumulator.add(index, self._in_layout(index, step.gradients(factor)))
        out = [
            p.grad.view(self._layout.full_shape(j)) if p.grad is not None else None
            for j, p in enumerate(self._parameters_in_order)
        ]
        self.last_projection = self.projection.project(self._accumulator.gradients, out)
        self._written = []
        for parameter, gradient in zip(self._parameters_in_order, self.last_projection.gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient.view(parameter.shape)
                self._written.append((parameter.grad, parameter.grad._version))

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """State of the projection's random orders, for an exact resume."""
        return {} if ema else {'projection': self.projection.state_dict()}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restores what `get_task_state` gave."""
        if state and not ema:
            self.projection.load_state_dict(state['projection'])

    def _is_continued(self) -> bool:
        """Whether `.grad` is still what this task wrote, so that the next micro-step adds to it."""
        current = [p.grad for p in self._parameters_in_order if p.grad is not None]
        return len(current) == len(self._written) > 0 and all(
            grad is ours and grad._version == version
            for grad, (ours, version) in zip(current, self._written, strict=True)
        )

    def _in_layout(self, width: int, gradients: list[Tensor | None]) -> list[Tensor | None]:
        shapes = self._layout.shapes(width)
        return [g if g is None else g.view(shape) for g, shape in zip(gradients, shapes, strict=True)]


class _WidthStep:
    """Loss of one width and the way to its gradients."""

    def __init__(self, loss: Tensor, leaves: list[Tensor]) -> None:
        self._loss: Tensor | None = loss
        self._leaves = leaves
        self._gradients: list[Tensor | None] | None = None

    def differentiate(self, factor: Tensor | None = None) -> None:
        """Takes the gradients, at slice size, and lets go of the graph."""
        assert self._loss is not None  # noqa: S101  taken once
        wanted = [leaf for leaf in self._leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(self._loss, wanted, grad_outputs=factor, allow_unused=True))
        self._gradients = [next(found) if leaf.requires_grad else None for leaf in self._leaves]
        self._loss, self._leaves = None, []

    def gradients(self, factor: Tensor) -> list[Tensor | None]:
        """Gradients of `factor` times the loss."""
        if self._gradients is None:
            self.differentiate(factor)
        elif factor != 1:
            torch._foreach_mul_([g for g in self._gradients if g is not None], factor)
        gradients, self._gradients = self._gradients, None
        assert gradients is not None  # noqa: S101
        return gradients


class _Aggregated(torch.autograd.Function):
    """The loss as a number whose backward hands over to the task."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, total: Tensor, task: SFSCTask, steps: list[_WidthStep]) -> Tensor:
        ctx.task, ctx.steps = task, steps
        return total.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, None, None, None]:
        with torch.no_grad():
            ctx.task.aggregate(ctx.steps, factor)
        return torch.zeros_like(factor), None, None, None
