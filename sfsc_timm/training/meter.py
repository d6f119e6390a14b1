"""What the steps of an epoch report, by column of the log."""

from __future__ import annotations

from typing import Any

from ..tasks import SFSCTask

__all__ = ['Meter', 'figures']


class Meter:
    """Means over the steps of an epoch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0

    def add(self, values: dict[str, float]) -> None:
        """Adds the figures of a step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / max(1, self.steps) for name, total in self.sums.items()}


def figures(task: SFSCTask, result: dict[str, Any]) -> dict[str, float]:
    """Loss and uncertainty of each width, rate of conflicts, norm of each width's gradient, cosine of each pair."""
    found = {}
    for width, loss, uncertainty in zip(
        task.widths, result['losses'].tolist(), result['uncertainty'].tolist(), strict=True
    ):
        found[f'loss_{width:g}'] = loss
        found[f'uncertainty_{width:g}'] = uncertainty
    projection = task.last_projection
    if projection is not None:
        found['conflict_rate'] = projection.conflict_rate
        for width, norm in zip(task.widths, projection.norms.tolist(), strict=True):
            found[f'gradnorm_{width:g}'] = norm
        cosines = projection.cosines.tolist()
        for i, small in enumerate(task.widths):
            for j, large in enumerate(task.widths[:i]):
                found[f'cosine_{large:g}_{small:g}'] = cosines[i][j]
    return found
