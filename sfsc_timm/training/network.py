"""One network of a run: its log, its checkpoints, its evaluations."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import unwrap_model

from .._files import sweep_leftovers, write_csv
from ..data import Batches, Preprocessing, RetrievalData
from ..evaluation import CompatibilityMatrix, Embedder, evaluate, plot_training
from .checkpoint import SECTION, going_on, load_checkpoint, origin_in, restore, save_checkpoint
from .config import TrainConfig
from .folder import LAST, keep_best
from .loop import Loop
from .origin import check_data, check_settings_kept, settings_in, words_on_bits
from .report import Report
from .stopping import Stop, StopSignal

__all__ = ['Network', 'Shared', 'draw']

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shared:
    """What the networks of a run have in common.

    Attributes:
        config: Settings.
        folder: The run's folder.
        title: Of the recipe.
        report: Is told what happens.
        input: How images are prepared.
        data: The data set.
        query: Batches of its queries.
        gallery: Batches of its gallery.
        device: Where the models are.
        is_first: Whether this is the process that writes.
        stop: Whether the run was asked to stop.
        origin: What the run began with, see `origin_of`.
        extends: Whether it may go on to more epochs than it began with.
    """

    config: TrainConfig
    folder: Path
    title: str
    report: Report
    input: Preprocessing
    data: RetrievalData
    query: Batches
    gallery: Batches
    device: torch.device
    is_first: bool
    stop: StopSignal
    origin: dict[str, Any]
    extends: bool = False

    def evaluate(self, model: Any, *, count_costs: bool = False) -> CompatibilityMatrix:
        """Every query width against every gallery width of a model; with costs, also at each of its sizes."""
        size = self.input.input_size if count_costs else None
        embedder = Embedder(model, self.query, self.gallery, input_size=size)
        dims = model.embed_dims if count_costs and len(model.embed_dims) > 1 else None
        return evaluate(embedder, None, self.data, device=self.device, dims=dims)


class Network:
    """Trains one network.

    Args:
        run: What it has in common with the others.
        name: Name among them, '' if it is the only one.
        folder: Where its files go.
        loop: Trains it.
        model_kwargs: By which later commands make it again.

    Attributes:
        matrix: Of the finished network, with its costs; None if it was not finished here but before.
    """

    def __init__(self, run: Shared, name: str, folder: Path, loop: Loop, model_kwargs: dict[str, Any]) -> None:
        self.run = run
        self.name = name
        self.folder = folder
        self.loop = loop
        self.model_kwargs = model_kwargs
        self.rows: list[dict[str, Any]] = []
        self.best: float | None = None
        self.matrix: CompatibilityMatrix | None = None
        self.seconds = 0.0
        self._since = time.monotonic()
        loop.on_step = self._on_step

    @property
    def model(self) -> Any:
        """What is evaluated: the averaged weights where there are some."""
        task = self.loop.task
        return unwrap_model(task.get_trainable_module(ema=task.has_ema()))

    def train(self) -> None:
        """Trains to the end from wherever the last state stands.

        Raises:
            FloatingPointError: A loss or weight is not finite.
            Stop: The run was asked to stop.
        """
        if self.run.is_first:
            sweep_leftovers(self.folder)
        if (self.folder / LAST).is_file():
            with going_on(self.folder / LAST):
                self._go_on(load_checkpoint(self.folder / LAST))
        self._since = time.monotonic()
        self.run.report.on_stage(self.name, self.loop)
        for means in self.loop.epochs():
            self._end_epoch(dict(means))
        if self.run.is_first:
            title = f'{self.run.title} {self.name}'
            draw(plot_training, self.rows, self.folder / 'training.png', title=title)

    def _go_on(self, content: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint, and does what its run was kept from doing after it had been saved."""
        run, origin = self.run, origin_in(content)
        check_settings_kept(content, origin, run.origin['settings'], run.extends)
        check_data(origin, run.origin)
        progress = restore(content, self.loop)
        self.rows, self.best = progress['rows'], progress['best']
        self.seconds = progress['seconds']
        if not run.is_first:
            return
        for words in filter(None, (words_on_bits(origin, run.origin), self._words_on_epochs(content))):
            _logger.warning('%s', words)
        write_csv(self.folder / 'summary.csv', self.rows)
        metric = content['metric']
        if progress.get('is_best', metric is not None and metric == self.best):
            keep_best(self.folder)

    def _words_on_epochs(self, content: dict[str, Any]) -> str | None:
        """What more epochs than were planned do to the schedule, if there are any."""
        before, now = settings_in(content, origin_in(content)).get('epochs'), self.run.config.epochs
        if before in (None, now):
            return None
        rate = content[SECTION]['loop']['optimizer']['param_groups'][0]['lr']
        return (
            f'{before} epochs were planned, {now} are trained: from here on the learning rate, {rate:.3g} before and '
            f'{self.loop.lr:.3g} now, and whatever is a share of the epochs follow the schedule of {now}; the result '
            f'is not that of a run of {now} from its start'
        )

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Evaluates if it is time to, then saves the state and the log.

        Args:
            row: Means of the epoch.
        """
        run, config = self.run, self.run.config
        metric = None
        is_last = self.loop.epoch == config.epochs
        if is_last or (config.eval_interval and self.loop.epoch % config.eval_interval == 0):
            matrix = run.evaluate(self.model, count_costs=is_last)
            metric = self._metric(matrix)
            row.update(_columns(matrix))
            run.report.on_matrix(self.name, matrix, is_last=False)
            if is_last:
                self.matrix = matrix
        row['seconds'] = self._passed()
        self.rows.append(row)
        is_best = metric is not None and (self.best is None or metric > self.best)
        self.best = metric if is_best else self.best
        self.save(metric, is_best=is_best)
        if run.is_first:
            write_csv(self.folder / 'summary.csv', self.rows)
            if is_best:
                keep_best(self.folder)
        run.report.on_row(self.name, row)

    def _on_step(self, loop: Loop) -> None:
        run, interval = self.run, self.run.config.checkpoint_interval
        run.report.on_step(loop)
        stop = run.stop.came()
        if stop or (interval and loop.updates % interval == 0):
            self.save()
        if stop:
            raise Stop(f'stopped after step {loop.updates}; go on with --resume {run.folder}')

    def save(self, metric: float | None = None, *, is_best: bool = False) -> None:
        """Saves the state of now.

        Args:
            metric: Of the evaluation that it belongs to.
            is_best: Whether it is the best so far.
        """
        config, given = self.run.config, self.run.input
        args = {
            **asdict(config),
            'model_kwargs': self.model_kwargs,
            'num_classes': self.run.data.num_classes,
            'input_size': given.input_size,
            'mean': given.mean,
            'std': given.std,
            'interpolation': given.interpolation,
            'crop_pct': given.crop_pct,
        }
        progress = {
            'rows': self.rows,
            'best': self.best,
            'is_best': is_best,
            'seconds': self._passed(),
            'origin': self.run.origin,
        }
        save_checkpoint(self.folder / LAST, self.loop, args, config.model, progress, metric)

    def _metric(self, matrix: CompatibilityMatrix) -> float:
        name = self.run.config.eval_metric
        if name == 'diagonal' or len(matrix.widths) == 1:
            return matrix.diagonal_mean
        return matrix.cross_mean if name == 'cross' else float(matrix.mAP.mean())

    def _passed(self) -> float:
        return self.seconds + time.monotonic() - self._since


def _columns(matrix: CompatibilityMatrix) -> dict[str, float]:
    """What the log holds of a matrix."""
    found = {f'mAP_{w:g}': float(v) for w, v in zip(matrix.widths, matrix.self_tests, strict=True)}
    found['mAP_diagonal'] = matrix.diagonal_mean
    if len(matrix.widths) > 1:
        found['mAP_cross'] = matrix.cross_mean
    if not math.isnan(matrix.update_gain):
        found['update_gain'] = matrix.update_gain
    return found


def draw(function: Any, *args: Any, **kwargs: Any) -> None:
    """Draws if matplotlib is there: a training does not fail for want of a picture."""
    try:
        function(*args, **kwargs)
    except ImportError as error:
        _logger.warning('no picture: %s', error)
