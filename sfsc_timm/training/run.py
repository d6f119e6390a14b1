"""A whole run: its folder, its networks one after the other, the final matrix."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .._device import find_device
from .._files import write_json
from ..checkpoints import compatibility_id
from ..data import Preprocessing, RetrievalData
from ..evaluation import CompatibilityMatrix, plot_matrix
from ..models import Slimmable, start_from_folded
from ..recipes import Recipe, create_recipe
from .build import (
    create_loaders,
    create_model,
    fit_model_to_input,
    from_scratch,
    lone_model,
    probe,
    read_training_data,
    resolve_input,
)
from .config import TrainConfig, write_config
from .folder import LAST
from .lone import LoneNetworks
from .loop import Loop
from .network import Network, Shared, draw
from .origin import origin_of
from .report import Report
from .stopping import StopSignal
from .teacher import principal_neck, start_fitted, start_from_teacher

__all__ = ['TrainingRun']

_logger = logging.getLogger(__name__)


class TrainingRun:
    """Trains by a recipe, in a folder of its own.

    The folder holds args.yaml, summary.csv, last.pth.tar (everything it takes to go on), model_best.pth.tar,
    matrix.json, matrix.png and training.png. Recipes with a network for each width have folders w1, w0.75, ... in it,
    those whose full width is trained alone first a folder `teacher`.

    Args:
        config: Settings.
        folder: Where the run's files go.
        report: Is told what happens.
        resume: Go on with a run in this folder.
        extend: Whether it may have been planned for fewer epochs.

    Raises:
        FileExistsError: There is a run in the folder, and it is not to be resumed.
        ValueError: A setting is wrong.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path,
        report: Report | None = None,
        resume: bool = False,
        extend: bool = False,
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
        self.input: Preprocessing = resolve_input(config)
        self.config = config = fit_model_to_input(config, self.input)
        self.widths = probe(config, self.input).widths
        if config.torchcompile and self.recipe.begins_alone:
            raise ValueError(
                f'torchcompile must be left out where embeddings are compared, got {config.torchcompile!r}: a compiled '
                'model gives logits only; give --recipe-kwargs teacher=0, or leave it out'
            )
        _check_recipe(self.recipe, config)
        self.data: RetrievalData = read_training_data(config, self.input.input_size, labelled=self.recipe.uses_labels)
        self.train_batches, self._query, self._gallery = create_loaders(
            config,
            self.data,
            self.input,
            parts=self.recipe.batches_per_step(len(self.widths)),
            own_epochs=self.recipe.own_epochs(config.epochs),
        )
        self._stop = StopSignal(self.device)
        self._extends = extend
        self._wait()
        if self.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_config(config, self.folder / 'args.yaml')

    @property
    def smallest_checkpoint(self) -> Path:
        """The last checkpoint of the narrowest network: of the model with all widths, where there is one."""
        return (self.folder / f'w{self.widths[0]:g}' if self.recipe.separate else self.folder) / LAST

    def run(self) -> CompatibilityMatrix:
        """Trains to the end and returns the final matrix.

        Raises:
            FloatingPointError: A loss or weight is not finite; last.pth.tar keeps the last good state.
            Stop: Ctrl-C or SIGTERM came; last.pth.tar has the state of now.
        """
        shared = Shared(
            self.config, self.folder, self.recipe.title, self.report, self.input, self.data, self._query,
            self._gallery, self.device, self.is_first, self._stop, origin_of(self.config, self.data, self.device),
            self._extends,
        )  # fmt: skip
        model: Any
        with self._stop.listening():
            model, matrix = self._train_separately(shared) if self.recipe.separate else self._train_jointly(shared)
        matrix = matrix or shared.evaluate(model, count_costs=True)
        matrix.info.update(recipe=self.config.recipe, settings=asdict(self.config))
        if not self.recipe.separate:  # by this `publish` knows whose figures these are
            matrix.info['compatibility'] = compatibility_id(model)
        if self.is_first:
            write_json(self.folder / 'matrix.json', matrix.to_dict())
            draw(plot_matrix, matrix, self.folder / 'matrix.png', title=f'{self.recipe.title} on {self.data.name}')
        self.report.on_matrix('', matrix, is_last=True)
        self._wait()
        return matrix

    def _train_jointly(self, shared: Shared) -> tuple[Any, CompatibilityMatrix | None]:
        """The model, and its matrix if the last epoch was trained, and so evaluated, just now."""
        torch.manual_seed(self.config.seed)
        teacher: Slimmable | None = None
        if self.recipe.keeps_start:
            model, teacher = self._start_from_given()
        else:
            model = create_model(self.config, self.data.num_classes, self.input)
            if self.recipe.begins_alone and len(self.widths) > 1:
                teacher = self._train_teacher(shared, model)
        trained = self._train(shared, '', model, teacher, self.recipe.model_options)
        return trained.model, trained.matrix

    def _start_from_given(self) -> tuple[Slimmable, Slimmable]:
        """The model whose widths all start from the given weights, and these as a network of full width alone."""
        config, classes, options = self.config, self.data.num_classes, self.recipe.model_options
        given = create_model(config, classes, self.input).to(self.device).eval()
        neck = principal_neck(given, self.train_batches) if 'neck' in given.fresh_parts else None
        if neck is not None and dist.is_initialized():  # each process has looked at other images
            with torch.no_grad():
                for tensor in (neck.weight, neck.bias):
                    dist.broadcast(tensor, 0)
        teacher = create_model(from_scratch(config), classes, self.input, **{**options, 'widths': (1.0,)})
        model = create_model(from_scratch(config), classes, self.input, **options)
        start_from_folded(teacher.to(self.device), given, neck)
        start_fitted(model.to(self.device), given, neck, self.train_batches)
        return model, teacher

    def _train_teacher(self, shared: Shared, model: Slimmable) -> Slimmable:
        """Trains the full width alone, or takes it as it was finished before; all widths of `model` start from it.

        Widths that come from a checkpoint are trained already, and stay as they are.
        """
        torch.manual_seed(self.config.seed)
        whole = lone_model(self.config, 1.0, self.data.num_classes, self.input)
        teacher: Slimmable = self._train(shared, 'teacher', whole, None, {'widths': (1.0,)}).model
        if not self.config.initial_checkpoint:
            start_from_teacher(model.to(self.device), teacher, self.train_batches)
        return teacher

    def _train_separately(self, shared: Shared) -> tuple[LoneNetworks, None]:
        """The networks, which have no matrix yet that sets one against another."""
        models: dict[float, Any] = {}
        for width in reversed(self.widths):
            torch.manual_seed(self.config.seed)
            model = lone_model(self.config, width, self.data.num_classes, self.input)
            reference = models.get(1.0) if self.recipe.follows else None
            changes = {'widths': (1.0,), 'full_width': width}
            models[width] = self._train(shared, f'w{width:g}', model, reference, changes).model
        return LoneNetworks(models), None

    def _train(self, shared: Shared, name: str, model: Slimmable, reference: Any, changes: dict[str, Any]) -> Network:
        """Trains one network, or takes it as it was finished before."""
        config, folder = self.config, self.folder / name
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
            _logger.warning('training steps are compiled by %s; evaluation runs eager', config.torchcompile)
        if dist.is_initialized():
            task.prepare_distributed()
        # Each process draws its own randomness; weights have just been made the same.
        torch.manual_seed(config.seed + (dist.get_rank() if dist.is_initialized() else 0))
        rate = self.recipe.joint_rate(config.opt) if reference is not None else 1.0
        loop = Loop(task, self.train_batches, replace(config, lr=config.lr * rate))
        network = Network(shared, name, folder, loop, {**config.model_kwargs, **changes})
        network.train()
        return network

    def _wait(self) -> None:
        if dist.is_initialized():
            dist.barrier()


def _check_recipe(recipe: Recipe, config: TrainConfig) -> None:
    """Refuses settings that a recipe would pass over, and the lack of those that it needs.

    Raises:
        ValueError: There are some.
    """
    for name, value in recipe.model_options.items():
        if config.model_kwargs.get(name, value) != value:
            raise ValueError(
                f'{name} must be {value} for the recipe {recipe.name}, got {config.model_kwargs[name]!r} in '
                'model_kwargs; leave it out'
            )
    if recipe.keeps_start and not config.pretrained and not config.initial_checkpoint:
        raise ValueError(
            f'weights to learn from are missing for the recipe {recipe.name}: give --pretrained, or '
            '--initial-checkpoint'
        )
    for name in () if recipe.uses_labels else ('triplet', 'num_instances', 'smoothing'):
        if value := getattr(config, name):
            raise ValueError(f'{name} must be left out for the recipe {recipe.name}, got {value}: it takes no labels')


def _device(config: TrainConfig) -> torch.device:
    """The device asked for, of several GPUs this process's own."""
    name = config.device
    if name in (None, 'cuda') and torch.cuda.is_available() and 'LOCAL_RANK' in os.environ:
        name = f'cuda:{os.environ["LOCAL_RANK"]}'
    device = find_device(name)
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    return device
