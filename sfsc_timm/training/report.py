"""Where a run tells what happens: nothing by default, files and services by choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..evaluation import CompatibilityMatrix
    from .loop import Loop

__all__ = ['Report', 'Reports', 'TensorBoard', 'WandB']


class Report:
    """Is told what happens in a run; does nothing with it."""

    def on_stage(self, name: str, loop: Loop) -> None:
        """A network begins to train, or goes on."""

    def on_step(self, loop: Loop) -> None:
        """An optimizer step is done."""

    def on_row(self, name: str, row: dict[str, Any]) -> None:
        """An epoch is done; `row` is what the log holds of it."""

    def on_matrix(self, name: str, matrix: CompatibilityMatrix, is_last: bool) -> None:
        """The widths were evaluated."""

    def close(self) -> None:
        """The run is over, or stopped."""


class Reports(Report):
    """Tells several.

    Args:
        reports: Whom.
    """

    def __init__(self, reports: Sequence[Report]) -> None:
        self.reports = reports

    def on_stage(self, name: str, loop: Loop) -> None:
        """Passes on."""
        for report in self.reports:
            report.on_stage(name, loop)

    def on_step(self, loop: Loop) -> None:
        """Passes on."""
        for report in self.reports:
            report.on_step(loop)

    def on_row(self, name: str, row: dict[str, Any]) -> None:
        """Passes on."""
        for report in self.reports:
            report.on_row(name, row)

    def on_matrix(self, name: str, matrix: CompatibilityMatrix, is_last: bool) -> None:
        """Passes on."""
        for report in self.reports:
            report.on_matrix(name, matrix, is_last)

    def close(self) -> None:
        """Passes on."""
        for report in self.reports:
            report.close()


def _numbers(name: str, row: dict[str, Any]) -> dict[str, float]:
    prefix = f'{name}/' if name else ''
    return {f'{prefix}{key}': float(value) for key, value in row.items() if value is not None and key != 'epoch'}


class TensorBoard(Report):
    """Writes each epoch's figures for TensorBoard.

    Args:
        folder: Where to.

    Raises:
        ImportError: TensorBoard is not installed; the message names the extra.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("--log-tensorboard needs TensorBoard: pip install 'sfsc-timm[tensorboard]'") from None
        self._writer: Any = SummaryWriter(str(folder))

    def on_row(self, name: str, row: dict[str, Any]) -> None:
        """Writes a row."""
        for key, value in _numbers(name, row).items():
            self._writer.add_scalar(key, value, int(row['epoch']))

    def close(self) -> None:
        """Flushes."""
        self._writer.close()


class WandB(Report):
    """Sends each epoch's figures to Weights & Biases.

    Args:
        folder: Where it keeps its files.
        name: Of the run; a resumed run goes on under it.
        project: Where it belongs.
        settings: Of the run.

    Raises:
        ImportError: wandb is not installed; the message names the extra.
    """

    def __init__(self, folder: Path, name: str, project: str, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError("--log-wandb needs wandb: pip install 'sfsc-timm[wandb]'") from None
        self._run: Any = wandb.init(
            project=project, name=name, id=name, resume='allow', dir=str(folder), config=settings
        )

    def on_row(self, name: str, row: dict[str, Any]) -> None:
        """Sends a row."""
        self._run.log({**_numbers(name, row), 'epoch': row['epoch']})

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()
