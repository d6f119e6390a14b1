"""From the widths' losses of one micro-step to their gradients."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._private import foreach_add_, foreach_mul_
from ._replica import PendingMean, Replica

__all__ = ['HandOver', 'MicroStep', 'StepResult', 'WidthStep', 'computes_in_half']


def computes_in_half(images: Tensor) -> bool:
    """Whether gradients are rounded to float16, whose range a gradient scaler has to look after."""
    device = images.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return torch.float16 in (autocast, images.dtype)


class StepResult(dict[str, Any]):
    """timm's dictionary of a step. Unlike a plain one it can be referred to weakly: its loss leads back to it."""


class WidthStep:
    """Loss of one width and the way to its gradients.

    Args:
        loss: Scalar with a graph.
        leaves: One tensor per parameter, at the width's slice size.
    """

    def __init__(self, loss: Tensor, leaves: list[Tensor]) -> None:
        self._loss: Tensor | None = loss
        self._leaves = leaves
        self._taken: list[Tensor] | PendingMean = []
        self._is_taken = [leaf.requires_grad for leaf in leaves]

    def differentiate(self, replica: Replica | None, factor: Tensor | None = None) -> None:
        """Takes the gradients, at slice size, and lets go of the graph.

        Args:
            replica: Starts averaging the gradients over all processes; None keeps them on this one.
            factor: Factor of the loss, where it has to enter before the gradients are rounded.

        Raises:
            RuntimeError: If they have been taken before.
        """
        if self._loss is None:
            raise RuntimeError('backward must be called once on a loss, got a second call; call the task again first')
        wanted = [leaf for leaf in self._leaves if leaf.requires_grad]
        # A leaf without a part in the loss has a gradient of 0: what is missing must be the same on all processes.
        found = torch.autograd.grad(self._loss, wanted, factor, allow_unused=True, materialize_grads=True)
        self._taken = list(found) if replica is None else replica.start_mean(found)
        self._loss, self._leaves = None, []

    def gradients(self, factor: Tensor | None) -> list[Tensor | None]:
        """One gradient per parameter, None for a frozen one, times `factor`."""
        taken = self._taken.wait() if isinstance(self._taken, PendingMean) else self._taken
        self._taken = []
        if factor is not None and factor != 1:
            foreach_mul_(taken, factor)
        gradients = iter(taken)
        return [next(gradients) if is_taken else None for is_taken in self._is_taken]


class MicroStep:
    """All widths on one batch, from their forwards to the backward of their loss.

    Args:
        keeps_graphs: Whether gradients are taken in backward.
        replica: Averages the gradients over all processes; None keeps them on this one.
        result: What the forward returns.
    """

    def __init__(self, keeps_graphs: bool, replica: Replica | None, result: StepResult) -> None:
        self.keeps_graphs = keeps_graphs
        self.replica = replica
        self.result = weakref.ref(result)
        self._widths: dict[int, list[WidthStep]] = {}
        self._is_done = False

    def add(self, index: int, loss: Tensor, leaves: list[Tensor], averages: bool) -> None:
        """Takes over a width's loss, or a further one, and its gradients if they can be taken now.

        Args:
            index: Number of the width.
            loss: Scalar with a graph.
            leaves: One tensor per parameter, at the width's slice size.
            averages: Whether the averaging over processes may start now.
        """
        self._widths.setdefault(index, []).append(WidthStep(loss, leaves))
        if not self.keeps_graphs:
            self._widths[index][-1].differentiate(self.replica if averages else None)

    def gradients(self, factor: Tensor, averages: bool) -> list[list[Tensor | None]]:
        """Gradients of every width, ascending, times `factor`.

        Args:
            factor: Factor of the loss ().
            averages: Whether gradients that are taken now are to be averaged over processes.

        Raises:
            RuntimeError: If they have been asked for before, or the processes do not agree on the factor.
        """
        if self._is_done:
            raise RuntimeError('backward must be called once on a loss, got a second call; call the task again first')
        self._is_done = True
        if self.keeps_graphs:
            for width in self._widths.values():  # each width's message travels during the next one's backward
                for loss in width:
                    loss.differentiate(self.replica if averages else None, factor)
            return [_sum_of(self._widths[index], None) for index in sorted(self._widths)]
        if self.replica is not None:
            self.replica.check_agreement(factor)
        return [_sum_of(self._widths[index], factor) for index in sorted(self._widths)]


def _sum_of(losses: list[WidthStep], factor: Tensor | None) -> list[Tensor | None]:
    """Summed gradients of one width's losses, times `factor`."""
    total, *others = (loss.gradients(factor) for loss in losses)
    for other in others:
        foreach_add_([t for t in total if t is not None], [t for t in other if t is not None])
    return total


class HandOver(torch.autograd.Function):
    """The loss as a number whose backward calls a function in place of autograd's own."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, total: Tensor, take: Callable[[Tensor], None]) -> Tensor:
        """Returns `total`, tied to `anchor` so that autograd sees a graph.

        Args:
            ctx: Autograd's.
            anchor: Any tensor () that requires a gradient.
            total: The loss ().
            take: Called once in backward with the factor of the loss (); writes `.grad`.
        """
        ctx.take = take
        return total.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, None, None]:
        """Has `.grad` written.

        Raises:
            RuntimeError: If a graph of the backward is asked for.
        """
        if torch.is_grad_enabled():
            raise RuntimeError(
                'create_graph must be False, got True: the projected gradient has no graph of its own; use an '
                'optimizer of first order (not adahessian)'
            )
        ctx.take(factor)
        return torch.zeros_like(factor), None, None
