"""The SFSC recipe as a timm task: all widths in one step, their gradients projected."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn

from ..gradients import GradientProjection, Projection
from ..losses import Objective, SubModelLoss, kl_annealing
from ..models import get_width, get_widths
from ..slim import slice_layout
from ._checks import check_composed, check_model, check_widths_kept, create_objective, nested
from ._passes import run_all
from ._random_widths import create_random_widths
from ._references import shown
from ._replica import Replica
from ._steps import HandOver, MicroStep, StepResult, computes_in_half
from ._sums import GradientSums

__all__ = ['SFSCTask']

_logger = logging.getLogger(__name__)


class SFSCTask(TrainingTask):
    """Trains all widths of a slimmable model jointly, so that their embeddings are compatible.

    `task(input, target)` runs every width; after `result['loss'].backward()` the aggregated gradient stands in `.grad`.

    Two designs, by what the loop's scaling needs:

    * By default each width's gradients are taken right after its forward. One width's activations are alive at a time,
      so the peak is the widest width's own plus the kept gradients at slice size (1.875 x the parameters for widths
      0.25, 0.5, 0.75, 1.0). The factor that `backward` brings along (accumulation, a loss scale) enters afterwards, in
      the gradients' own precision.
    * In float16 (autocast or weights) a gradient scaler's factor has to enter before gradients are rounded, so all
      graphs are kept until `backward` (the activations of all widths: 2.5 x those of the widest).

    Gradients accumulate over micro-steps per width, and `.grad` is always the projection of all that has accumulated
    since `zero_grad`, all micro-steps with the same random order. Like the sum it stands for, it depends only on
    `zero_grad`: what else happens to `.grad` (clipping, an optimizer step) is overwritten by the next micro-step. While
    it accumulates, a micro-step's gradients are kept beside the sums, since their factor is not known before
    `backward`: twice the memory of the slices.

    On several processes the task broadcasts weights and averages gradients itself (`prepare_distributed`), since
    gradients taken by `torch.autograd.grad` never reach DistributedDataParallel's hooks. Each width's message travels
    while the next width runs; the projection is decided from the averages, so all processes take the same step.

    Args:
        model: Slimmable model with a classifier.
        criterion: Loss of each sub-model: 'evidential' (SFSC's, from uncertainty), 'cross_entropy', a module of the
            same interface, or a `sfsc_timm.losses.Objective`, which also sees embeddings and the full-width model. An
            objective's own parameters are trained, too: give `task.extra_parameters` to the optimizer.
        criterion_kwargs: Options of the loss, if it is given by name.
        aggregation: 'pcgrad' (SFSC's projection), 'sum', or any weighting that `GradientProjection` takes.
        scope: Over which parameters gradients are compared: 'shell', 'global' or 'layer'.
        kl_annealing_steps: Updates over which the loss's regulariser is let in; 0 for all of it from the start.
        reference: Trained full-width model that an objective looks up to, not trained here; None for the full width of
            `model` itself.
        own_batches: Whether every width has a batch of its own: an input then holds one for each width, ascending, of
            the same size, one after the other. Widths that share a batch rarely conflict (their gradients agree about
            its images); with batches of their own they disagree by chance, and shared weights average over more images.
            For an objective that compares widths, the full width looks at every smaller width's images a second time,
            as it serves (in evaluation mode); with a shared batch it takes the training forward's embeddings.
        composed: Images without a label that smaller widths run besides, made of the batch, as a share of it, for an
            objective that compares them with a finished `reference`.
        size_weight: Factor of the loss of each smaller size, for a model with `embed_dims`: see `losses.Nested`.
        random_widths: How many networks between the widths each step trains besides, drawn anew, for widths that are
            added later (`model.add_width`).
        seed: Of the random orders and widths; the same on every process.
        device: Device of the task.
        dtype: Type of the task.
        verbose: Log what is trained.

    Raises:
        ValueError: If `model` is not slimmable or has no classifier, or an option is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: str | SubModelLoss | Objective = 'evidential',
        criterion_kwargs: dict[str, Any] | None = None,
        aggregation: Any = 'pcgrad',
        scope: str = 'shell',
        kl_annealing_steps: int = 0,
        reference: nn.Module | None = None,
        own_batches: bool = False,
        composed: float = 0.0,
        size_weight: float = 1.0,
        random_widths: int = 0,
        seed: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        check_model(model)
        if kl_annealing_steps < 0:
            raise ValueError(f'kl_annealing_steps must be >= 0, got {kl_annealing_steps}; 0 is for no annealing')
        self.widths = get_widths(model)
        self.trainable_module = model
        objective = nested(create_objective(criterion, criterion_kwargs), model, size_weight)
        self.objective = objective.to(device=self.device)
        self.own_batches = own_batches
        self.composed = check_composed(composed, self.objective, reference, own_batches)
        self.reference = None if reference is None else reference.to(self.device).eval().requires_grad_(False)
        self._random_widths = create_random_widths(model, random_widths, seed)
        self.extra_parameters = list(self.objective.parameters())
        self.kl_annealing_steps = kl_annealing_steps
        self.last_projection: Projection | None = None
        generator = torch.Generator().manual_seed(seed)
        layout = slice_layout(model, self.extra_parameters)
        self.projection = GradientProjection(layout, aggregation, scope, generator)
        self._sums = GradientSums([*model.parameters(), *self.extra_parameters], self.projection)
        if verbose:
            _logger.info(
                'SFSCTask: widths %s jointly, criterion %s, aggregation %s, scope %s; output and EMA are of width %g.',
                ', '.join(f'{width:g}' for width in self.widths),
                self.objective.loss,
                aggregation,
                scope,
                get_width(model),
            )

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Any]:  # noqa: A002
        """Runs every width on a batch.

        Args:
            input: Images (B, C, H, W); with `own_batches` (widths * B, C, H, W).
            target: Class indices (B,) or class probabilities (B, classes); with `own_batches` widths * B of them.

        Returns:
            'loss': sum of all losses; its `backward` puts the aggregated gradient into `.grad`.
            'output': logits (B, classes) at the width that was active at the call.
            'losses' and 'uncertainty': per width, ascending, (widths,), detached.
            `backward` adds what the projection was decided from, over all that has accumulated:
            'conflict_rate' (): share of negative inner products, 'cosines' (widths, widths), and 'gradient_norms'
            (widths,) over the shared parameters, with the loss's factor. All in float64 on the CPU.

        Raises:
            ValueError: If there is not a batch for each width, though each is to have its own.
            RuntimeError: If a width was added to the model after the task was made.
        """
        check_widths_kept(self.trainable_module, self.widths)
        step, result = None, StepResult()
        if torch.is_grad_enabled():
            self._sums.forget_if_reset()
            replica = self._replica if self._replica is not None and self._replica.synchronises else None
            if replica is not None and self.trainable_module.training:
                replica.broadcast_buffers()
            step = MicroStep(computes_in_half(input), replica, result)
        self._run_all(input, target, step, result)
        if step is not None:
            anchor = torch.zeros((), device=result['loss'].device, requires_grad=True)
            result['loss'] = HandOver.apply(anchor, result['loss'], partial(self.aggregate, step))
        return result

    def aggregate(self, step: MicroStep, factor: Tensor) -> None:
        """Adds a micro-step's gradients, times `factor`, and writes the projection of the sum to `.grad`."""
        with torch.no_grad():
            self._sums.forget_if_reset()
            self._sums.add(step.gradients(factor, averages=not self._sums.is_local))
            if step.replica is not None:
                self._sums.average(step.replica)
            else:
                self._sums.is_local = self._replica is not None
            self.last_projection = self._sums.write()
        result = step.result()
        if result is not None:
            result['conflict_rate'] = torch.tensor(self.last_projection.conflict_rate, dtype=torch.float64)
            result['cosines'] = self.last_projection.cosines
            result['gradient_norms'] = self.last_projection.norms

    def compile(self, backend: str = 'inductor', mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compiles the model, one graph per width for training and one for evaluation of the active width.

        Raises:
            RuntimeError: If the task already is distributed, or its loss or `random_widths` rule it out.
        """
        if self._replica is not None:
            raise RuntimeError(
                'compile must be called before prepare_distributed, got a distributed task; call it first'
            )
        if self._random_widths is not None:
            raise RuntimeError(
                'compile must be left out with random_widths: each of them would be a graph of its own; leave one out'
            )
        if self.objective.uses_embedding:
            raise RuntimeError(
                'compile must be left out with a loss on embeddings: a compiled model gives logits only; leave out the '
                'triplet loss, several sizes (embed_dims) and what else compares embeddings, or compile'
            )
        compiled: Any = torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        self.trainable_module = self.eval_model = compiled
        return self.trainable_module

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> SFSCTask:
        """Takes over the first process's weights, and averages gradients over all processes from now on.

        Args:
            device_ids: Not needed: the model stays where it is.
            **ddp_kwargs: Of DistributedDataParallel's options `broadcast_buffers` and `process_group`.

        Raises:
            ValueError: If another option is given.
        """
        buffers = ddp_kwargs.pop('broadcast_buffers', True)
        group = ddp_kwargs.pop('process_group', None)
        if ddp_kwargs:
            raise ValueError(f'ddp_kwargs must hold broadcast_buffers and process_group only, got {sorted(ddp_kwargs)}')
        replica = Replica(self.trainable_module, buffers, group)
        replica.broadcast(self.extra_parameters)
        replica.broadcast_state(self.projection.generator.get_state, self.projection.generator.set_state)
        unwrap_model(replica).refresh()
        self.trainable_module = replica
        return self

    def get_clip_parameters(self, exclude_head: bool = False) -> list[Tensor]:
        """Parameters to clip; `exclude_head` leaves out the classifier's, however many they are (timm: the last 2)."""
        model = unwrap_model(self.trainable_module)
        head = {id(parameter) for parameter in model.get_classifier().parameters()} if exclude_head else set()
        found = [parameter for parameter in model.parameters() if id(parameter) not in head]
        return found if exclude_head else [*found, *self.extra_parameters]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """State of the random orders, of the annealing and of the objective's own parameters, for an exact resume."""
        if ema:
            return {}
        own = {'objective': self.objective.state_dict()} if self.extra_parameters else {}
        return {**self._sums.state_dict(), **own}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restores what `get_task_state` gave; a checkpoint without it (of another task) changes nothing.

        Raises:
            ValueError: If `strict` and the state is another task's.
        """
        if not state or ema:
            return
        if missing := {'projection', 'updates', *(['objective'] if self.extra_parameters else [])} - set(state):
            if strict:
                raise ValueError(f"state must hold SFSCTask's {sorted(missing)}, got {sorted(state)}")
            return
        self._sums.load_state_dict(state)
        self.objective.load_state_dict(state.get('objective', {}))

    def train(self, mode: bool = True) -> SFSCTask:
        """As in torch; the reference stays in evaluation."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    @property
    def criterion(self) -> SubModelLoss:
        """The loss on logits."""
        return self.objective.loss

    @property
    def _replica(self) -> Replica | None:
        return self.trainable_module if isinstance(self.trainable_module, Replica) else None

    def _run_all(self, images: Tensor, target: Tensor, step: MicroStep | None, result: StepResult) -> None:
        """Runs every width; losses, mean uncertainties and the output of the active width go to `result`."""
        model = unwrap_model(self.trainable_module)
        steps, update = self.kl_annealing_steps, self._sums.updates
        parts = shown(images, target, len(self.widths), self.own_batches, self.composed)
        drawing = self._random_widths if step is not None and model.training else None
        found, between = run_all(
            self.trainable_module,
            self.objective,
            parts,
            reference=self.reference,
            own_batches=self.own_batches,
            kl_scale=kl_annealing(update, steps) if steps else 1.0,
            take=None if step is None else partial(self._take, step),
            drawn={} if drawing is None else drawing.draw(update),
        )
        active = self.widths.index(get_width(model))
        result['output'] = found[active][0][: len(parts[active][1])]
        result['losses'] = torch.stack([loss for _, loss, _ in found])
        result['uncertainty'] = torch.stack([uncertainty for _, _, uncertainty in found])
        result['loss'] = result['losses'].sum() + sum(between)

    def _take(self, step: MicroStep, index: int, loss: Tensor, leaves: list[Tensor]) -> None:
        """Hands a width's loss over to a step, with what it is to be differentiated by."""
        step.add(index, loss, [*leaves, *self.extra_parameters], averages=not self._sums.is_local)
