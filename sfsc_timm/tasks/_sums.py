"""The widths' gradients since `zero_grad`, and their projection in `.grad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..gradients import GradientAccumulator, GradientProjection, Projection
from ._replica import Replica

__all__ = ['GradientSums']


class GradientSums:
    """Sums every width's gradients until `zero_grad`, and writes their projection to `.grad`.

    Args:
        parameters: In the order of the projection's layout.
        projection: Aggregates the sums.

    Attributes:
        is_local: Whether the sums are this process's alone, still to be averaged.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], projection: GradientProjection) -> None:
        self.is_local = False
        self._parameters = parameters
        self._projection = projection
        self._layout = projection.layout
        self._accumulator = GradientAccumulator(self._layout)
        self._order = projection.generator.get_state()
        self._begun = 0
        self._written: list[tuple[Tensor, int] | None] = []

    @property
    def updates(self) -> int:
        """How many sums came before the ones under way: the number of the optimizer step."""
        return self._begun - bool(self._written)

    def forget_if_reset(self) -> None:
        """Starts afresh, and frees the sums, if `zero_grad` came after the last projection was written.

        A gradient that is gone tells, or one that is zero while its sums are not. One is enough, so that parameters
        outside of the optimizer, which no one resets, do not keep old sums alive.
        """
        for index, written in enumerate(self._written):
            if written is None:
                continue
            gradient = self._parameters[index].grad
            untouched = gradient is written[0] and gradient._version == written[1]
            if gradient is None or (not untouched and not gradient.any() and self._has_sum(index)):
                self._forget()
                return

    def add(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        """Adds one micro-step's gradients, one per width and parameter, at slice size."""
        for index, (own, shapes) in enumerate(zip(gradients, self._shapes(), strict=True)):
            self._accumulator.add(
                index, [g if g is None else g.view(shape) for g, shape in zip(own, shapes, strict=True)]
            )

    def average(self, replica: Replica) -> None:
        """Averages sums over processes that were kept on this one; those averaged before are not changed by it."""
        if self.is_local:
            self._accumulator.gradients = [replica.mean(gradients) for gradients in self._accumulator.gradients]
            self.is_local = False

    def write(self) -> Projection:
        """Writes the projection of the sums to `.grad`, in each parameter's own memory format."""
        generator = self._projection.generator
        if self._written:  # the same update goes on: the same order
            generator.set_state(self._order)
        else:
            self._order = generator.get_state()
            self._begun += 1
        sums = self._accumulator.gradients
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None and any(width[index] is not None for width in sums):
                parameter.grad = torch.empty_like(parameter)
        given = [parameter.grad for parameter in self._parameters]
        out = [None if g is None else g.view(self._layout.full_shape(j)) for j, g in enumerate(given)]
        projection = self._projection.project(sums, out)
        self._written = [None if g is None else (g, g._version) for g in given]
        return projection

    def state_dict(self) -> dict[str, Any]:
        """What the next update depends on, apart from gradients."""
        return {'projection': self._projection.state_dict(), 'updates': self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._projection.load_state_dict(state['projection'])
        self._begun = state['updates']
        self._forget()

    def _forget(self) -> None:
        self._accumulator.clear()
        self._written = []
        self.is_local = False

    def _has_sum(self, parameter: int) -> bool:
        sums = (width[parameter] for width in self._accumulator.gradients)
        return any(found is not None and bool(found.any()) for found in sums)

    def _shapes(self) -> list[list[tuple[int, ...]]]:
        return [self._layout.shapes(width) for width in range(self._layout.num_widths)]
