"""A whole run: its folder, its networks one after the other, evaluation, checkpoints, resuming."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import unwrap_model

from .._device import find_device
from .._files import replacing, write_csv, write_json
from ..checkpoints import compatibility_id
from ..data import RetrievalData
from ..evaluation import CompatibilityMatrix, plot_matrix, plot_training
from ..models import Slimmable
from ..recipes import Recipe, create_recipe
from .build import Input, create_loaders, create_model, lone_model, probe, read_training_data, resolve_input
from .checkpoint import load_checkpoint, restore, save_checkpoint
from .config import TrainConfig, read_config, write_config
from .evaluate import Split, evaluate_models, with_costs
from .loop import Loop
from .report import Report

__all__ = ['TrainingRun', 'resume_config', 'run_folder']

_logger = logging.getLogger(__name__)

LAST, BEST = 'last.pth.tar', 'model_best.pth.tar'


def run_folder(config: TrainConfig) -> Path:
    """Folder of a new run: output/experiment, or output/time-recipe-model."""
    name = config.experiment or f'{time.strftime("%Y%m%d-%H%M%S")}-{config.recipe}-{config.model}'
    return Path(config.output) / name


def resume_config(folder: str | Path, given: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """Settings of a run that is to go on.

    Args:
        folder: Of the run, or a checkpoint in it.
        given: Settings asked for now. Those that decide what is computed must be the run's.

    Returns:
        The settings and the run's folder.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: A setting differs.
    """
    path = Path(folder)
    path = path.parent if path.suffix == '.tar' else path
    if not (path / 'args.yaml').is_file() and (path.parent / 'args.yaml').is_file():
        path = path.parent  # a checkpoint of one of several networks
    if not (path / 'args.yaml').is_file():
        raise FileNotFoundError(f'no run to resume at {str(path)!r}: it has no args.yaml')
    before = read_config(path / 'args.yaml')
    free = {entry.name for entry in fields(TrainConfig) if entry.metadata.get('runtime')}
    kept = asdict(TrainConfig(**before))
    for name, value in given.items():
        if name in free:
            before[name] = value
        elif json.dumps(kept[name], default=str) != json.dumps(value, default=str):
            raise ValueError(
                f'{name} was {kept[name]!r} in the run at {str(path)!r}, got {value!r}: a resumed run goes on as it '
                'began; leave the flag out, or start a new run'
            )
    return TrainConfig(**before), path


class Stop(KeyboardInterrupt):
    """The run was asked to stop and has saved its state."""


class TrainingRun:
    """Trains by a recipe, in a folder of its own.

    The folder holds args.yaml, summary.csv, last.pth.tar (everything it takes to go on), model_best.pth.tar,
    matrix.json, matrix.png and training.png. Recipes with a network for each width have folders w1, w0.75, ... in it.

    Args:
        config: Settings.
        folder: Of the run.
        report: Is told what happens.
        resume: Go on with a run in this folder.

    Raises:
        FileExistsError: There is a run in the folder, and it is not to be resumed.
        ValueError: A setting is wrong.
    """

    def __init__(
        self, config: TrainConfig, folder: str | Path, report: Report | None = None, resume: bool = False
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.report = report or Report()
        self.recipe: Recipe = create_recipe(config.recipe, **config.recipe_kwargs)
        self.device = _device(config)
        self.is_first = not dist.is_initialized() or dist.get_rank() == 0
        if (self.folder / 'args.yaml').is_file() and not resume:
            raise FileExistsError(
                f'{str(self.folder)!r} holds a run already; go on with --resume {self.folder}, or choose another '
                '--experiment'
            )
        self.input: Input = resolve_input(config)
        self.widths = probe(config, self.input).widths
        self.data: RetrievalData = read_training_data(config, self.input['input_size'])
        self.train_batches, query, gallery = create_loaders(
            config,
            self.data,
            self.input,
            parts=self.recipe.batches_per_step(len(self.widths)),
            own_epochs=self.recipe.own_epochs(config.epochs),
        )
        self.split: Split = (self.data, query, gallery)
        self._stop = False
        self._wait()
        if self.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_config(config, self.folder / 'args.yaml')

    def run(self) -> CompatibilityMatrix:
        """Trains to the end and returns the final matrix.

        Raises:
            FloatingPointError: A loss or weight is not finite; last.pth.tar keeps the last good state.
            Stop: Ctrl-C or SIGTERM came; last.pth.tar has the state of now.
        """
        with self._signals():
            models, matrix = self._train_separately() if self.recipe.separate else self._train_jointly()
        matrix = matrix or evaluate_models(models, self.split, self.device)
        matrix = with_costs(matrix, models, self.input['input_size'])
        matrix.info.update(recipe=self.config.recipe, settings=asdict(self.config))
        if not self.recipe.separate:  # by this `publish` knows whose figures these are
            matrix.info['compatibility'] = compatibility_id(models[1.0])
        if self.is_first:
            write_json(self.folder / 'matrix.json', matrix.to_dict())
            _plot(plot_matrix, matrix, self.folder / 'matrix.png', title=f'{self.recipe.title} on {self.data.name}')
        self.report.on_matrix('', matrix, is_last=True)
        self._wait()
        return matrix

    def _train_jointly(self) -> tuple[dict[float, Any], CompatibilityMatrix | None]:
        """The model of each width, and the matrix if the last epoch was trained, and so evaluated, just now."""
        torch.manual_seed(self.config.seed)
        model = create_model(self.config, self.data.num_classes, self.input)
        trained = self._train('', model, self.folder, None, {})
        return dict.fromkeys(model.widths, trained.model), trained.matrix

    def _train_separately(self) -> tuple[dict[float, Any], None]:
        models: dict[float, Any] = {}
        for width in reversed(self.widths):
            torch.manual_seed(self.config.seed)
            model = lone_model(self.config, width, self.data.num_classes, self.input)
            reference = models.get(1.0) if self.recipe.follows else None
            changes = {'widths': (1.0,), 'full_width': width}
            name = f'w{width:g}'
            models[width] = self._train(name, model, self.folder / name, reference, changes).model
        return models, None

    def _train(self, name: str, model: Slimmable, folder: Path, reference: Any, changes: dict[str, Any]) -> _Network:
        """Trains one network, or takes it as it was finished before."""
        config = self.config
        if self.is_first:
            folder.mkdir(parents=True, exist_ok=True)
        model.to(self.device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        if config.grad_checkpointing:
            model.set_grad_checkpointing()
        updates = -(-len(self.train_batches) // config.grad_accum_steps)
        task = self.recipe.create_task(
            model,
            updates_per_epoch=updates,
            smoothing=config.smoothing,
            triplet_weight=config.triplet,
            margin=config.margin,
            reference=reference,
            seed=config.seed,
            device=self.device,
        )
        if config.torchcompile:
            task.compile(backend=config.torchcompile)
        if dist.is_initialized():
            task.prepare_distributed()
        # Each process draws its own randomness; weights have just been made the same.
        torch.manual_seed(config.seed + (dist.get_rank() if dist.is_initialized() else 0))
        loop = Loop(task, self.train_batches, config)
        network = _Network(self, name, folder, loop, {**config.model_kwargs, **changes})
        network.train()
        return network

    def asked_to_stop(self) -> bool:
        """Whether any process was: all have to stop at the same step."""
        if not dist.is_initialized():
            return self._stop
        flag = torch.tensor([float(self._stop)], device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets the step end and the state be saved, the second stops at once."""

        def handle(number: int, _: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True
            _logger.warning('%s: stopping after this step; once more to stop at once', signal.Signals(number).name)

        try:
            before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs us there looks after signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self) -> None:
        if dist.is_initialized():
            dist.barrier()


class _Network:
    """One network of a run: its log, its checkpoints, its evaluations.

    Args:
        run: The run.
        name: Of the network, '' if there is one only.
        folder: Where its files go.
        loop: Trains it.
        model_kwargs: By which later commands make it again.
    """

    def __init__(self, run: TrainingRun, name: str, folder: Path, loop: Loop, model_kwargs: dict[str, Any]) -> None:
        self.run = run
        self.name = name
        self.folder = folder
        self.loop = loop
        self.model_kwargs = model_kwargs
        self.rows: list[dict[str, Any]] = []
        self.best: float | None = None
        self.matrix: CompatibilityMatrix | None = None  # of the finished network, if it was finished here
        self.seconds = 0.0
        self._since = time.monotonic()
        loop.on_step = self._on_step

    def train(self) -> None:
        """Trains to the end from wherever the last state stands."""
        if (self.folder / LAST).is_file():
            progress = restore(load_checkpoint(self.folder / LAST), self.loop)
            self.rows, self.best = progress['rows'], progress['best']
            self.seconds = progress['seconds']
        self._since = time.monotonic()
        run, config = self.run, self.run.config
        run.report.on_stage(self.name, self.loop)
        for means in self.loop.epochs():
            row: dict[str, Any] = dict(means)
            metric = None
            is_last = self.loop.epoch == config.epochs
            if is_last or (config.eval_interval and self.loop.epoch % config.eval_interval == 0):
                matrix = self._evaluate()
                metric = self._metric(matrix)
                row.update(_columns(matrix))
                run.report.on_matrix(self.name, matrix, is_last=False)
                if is_last:
                    self.matrix = matrix
            row['seconds'] = self._passed()
            self.rows.append(row)
            is_best = metric is not None and (self.best is None or metric > self.best)
            self.best = metric if is_best else self.best
            self.save(metric)
            if run.is_first:
                write_csv(self.folder / 'summary.csv', self.rows)
                if is_best:
                    _link(self.folder / LAST, self.folder / BEST)
            run.report.on_row(self.name, row)
        if run.is_first:
            _plot(plot_training, self.rows, self.folder / 'training.png', title=f'{run.recipe.title} {self.name}')

    def _on_step(self, loop: Loop) -> None:
        run, interval = self.run, self.run.config.checkpoint_interval
        run.report.on_step(loop)
        stop = run.asked_to_stop()
        if stop or (interval and loop.updates % interval == 0):
            self.save()
        if stop:
            raise Stop(f'stopped after step {loop.updates}; go on with --resume {run.folder}')

    @property
    def model(self) -> Any:
        """What is evaluated: the averaged weights where there are some."""
        task = self.loop.task
        return unwrap_model(task.get_trainable_module(ema=task.has_ema()))

    def save(self, metric: float | None = None) -> None:
        """Saves the state of now."""
        config, given = self.run.config, self.run.input
        args = {
            **asdict(config),
            'model_kwargs': self.model_kwargs,
            'num_classes': self.run.data.num_classes,
            'input_size': tuple(given['input_size']),
            'mean': tuple(given['mean']),
            'std': tuple(given['std']),
            'interpolation': given['interpolation'],
            'crop_pct': 1.0,
        }
        progress = {'rows': self.rows, 'best': self.best, 'seconds': self._passed()}
        save_checkpoint(self.folder / LAST, self.loop, args, config.model, progress, metric)

    def _evaluate(self) -> CompatibilityMatrix:
        model: Slimmable = self.model
        return evaluate_models(dict.fromkeys(model.widths, model), self.run.split, self.run.device)

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
    cross = {} if len(matrix.widths) == 1 else {'mAP_cross': matrix.cross_mean}
    return {**found, 'mAP_diagonal': matrix.diagonal_mean, **cross}


def _device(config: TrainConfig) -> torch.device:
    """The device asked for, of several GPUs this process's own."""
    name = config.device
    if name in (None, 'cuda') and torch.cuda.is_available() and 'LOCAL_RANK' in os.environ:
        name = f'cuda:{os.environ["LOCAL_RANK"]}'
    device = find_device(name)
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    return device


def _link(source: Path, target: Path) -> None:
    """Makes `target` what `source` is now, without copying where links are possible."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            temporary.write_bytes(source.read_bytes())


def _plot(function: Any, *args: Any, **kwargs: Any) -> None:
    """Draws if matplotlib is there: a training does not fail for want of a picture."""
    try:
        function(*args, **kwargs)
    except ImportError as error:
        _logger.warning('no picture: %s', error)
