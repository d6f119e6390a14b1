r"""Trains a slimmable model so that its widths share one metric space.

Flags that timm's train.py has, too, mean the same. Settings may come from a YAML file (`--config`); flags on the
command line win. The run's folder holds args.yaml (all settings), summary.csv (curves), last.pth.tar (everything it
takes to go on), model_best.pth.tar, matrix.json, matrix.png and training.png. Checkpoints are in timm's format:
`sfsc-timm eval`, `index`, `search` and timm's own scripts take them.

  sfsc-timm train --data glyphs --model sfsc_resnet18d --img-size 32 --epochs 10 --lr 0.1
  sfsc-timm train --data emoji --data-dir emoji --preload --img-size 32 --model sfsc_resnet18d --recipe bct-s
  sfsc-timm train --data market1501 --data-dir Market-1501-v15.09.15 --model sfsc_resnet50.a1_in1k --pretrained \
      --input-size 3 256 128 --batch-size 64 --num-instances 4 --triplet 1 --lr 0.05 --epochs 60 --warmup-epochs 10
  sfsc-timm train --resume output/train/20260101-120000-sfsc-sfsc_resnet18d
  torchrun --nproc-per-node 4 -m sfsc_timm train --data ...

`--resume` goes on bit for bit: weights, optimizer, averages, data order and random numbers are those that the run would
have had without the interruption, on as many processes and threads. Ctrl-C saves the state of now; so does SIGTERM.
Settings and data must be those that the run began with, differences are refused by name; output, device, workers,
threads, logs and the place of the data may change, epochs by `--extend` alone.

"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch.distributed as dist

from .._device import use_threads
from .._settings import range_of
from ..evaluation import by_size, size_table, summary
from ..recipes import list_recipes
from ..training import (
    Loop,
    Report,
    Reports,
    TensorBoard,
    TrainConfig,
    TrainingRun,
    WandB,
    read_config,
    resume_config,
    run_folder,
)
from ._options import KeyValues
from ._terminal import console, matrix_table, progress_bar

_GROUPS = ('recipe', 'data', 'model', 'optimizer', 'schedule', 'evaluation', 'running')


def _allowed(entry: Field[Any]) -> str:
    """What an option may be, in parentheses."""
    allowed = range_of(entry) or ', '.join(entry.metadata.get('choices', ()))
    return f' ({allowed})' if allowed else ''


def _recipes() -> Iterator[str]:
    yield 'Recipes (--recipe) and their options (--recipe-kwargs NAME=VALUE ...):\n'
    for name, cls in list_recipes().items():
        options = ', '.join(f'{entry.name}={getattr(cls, entry.name)!r}{_allowed(entry)}' for entry in fields(cls))
        # Under `python -OO` a dataclass has its signature for a docstring.
        about = cls.title if sys.flags.optimize > 1 else str(cls.__doc__).splitlines()[0]
        yield f'  {name:<14}{about}'
        if options:
            yield f'  {"":<14}{options}'


NOTES = '\n'.join(_recipes()) + '\n'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; what is not given is left out of the namespace."""
    parser.add_argument('-c', '--config', metavar='FILE', help='YAML file of settings')
    parser.add_argument('--resume', metavar='RUN', help='folder of a run, or a checkpoint in it, to go on with')
    parser.add_argument(
        '--extend',
        type=int,
        metavar='N',
        help='with --resume: train to N epochs in all, more than were planned; from here on the learning rate follows '
        'the schedule of N epochs, so that the result is not that of a run of N from its start',
    )
    hints = get_type_hints(TrainConfig)
    for name in _GROUPS:
        group = parser.add_argument_group(name)
        for entry in fields(TrainConfig):
            if entry.metadata['group'] == name:
                _add(group, entry, hints[entry.name])


def _add(group: Any, entry: Field[Any], hint: Any) -> None:
    flags = [f'--{entry.name.replace("_", "-")}']
    if short := entry.metadata.get('short'):
        flags.insert(0, f'-{short}')
    default = entry.default if entry.default is not MISSING else None
    notes = [range_of(entry), '' if default in (None, '', False) else str(default)]
    shown = f' ({"; ".join(filter(None, notes))})' if any(notes) else ''
    options: dict[str, Any] = {'help': entry.metadata['help'].replace('%', '%%') + shown, 'default': argparse.SUPPRESS}
    if hint is bool:
        group.add_argument(*flags, action=argparse.BooleanOptionalAction, **options)
    elif hint == dict[str, Any]:
        group.add_argument(*flags, nargs='*', action=KeyValues, metavar='NAME=VALUE', **options)
    else:
        kind = next((t for t in (int, float) if str(t.__name__) in str(hint)), str)
        if choices := entry.metadata.get('choices'):
            options['choices'] = choices
        else:
            options['metavar'] = {int: 'N', float: 'X', str: 'NAME'}[kind]
        if count := entry.metadata.get('count'):
            options['nargs'] = count
        group.add_argument(*flags, type=kind, **options)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    given = read_config(args.config) if args.config else {}
    given.update((e.name, getattr(args, e.name)) for e in fields(TrainConfig) if hasattr(args, e.name))
    if args.resume:
        config, folder = resume_config(args.resume, given, args.extend)
    elif args.extend is not None:
        raise ValueError(f'--extend must come with --resume, got {args.extend} alone; a new run takes --epochs')
    else:
        config = TrainConfig(**given)
        folder = run_folder(config)
    distributed = int(os.environ.get('WORLD_SIZE', '1')) > 1
    if distributed:
        _join_processes()
    _set_threads(config)
    try:
        _train(config, folder, resume=bool(args.resume), extend=args.extend is not None)
    finally:
        if distributed:
            dist.destroy_process_group()


def _train(config: TrainConfig, folder: Path, *, resume: bool, extend: bool) -> None:
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    terminal = console()
    reports: list[Report] = [_Terminal(terminal, config)] if is_first else []
    training = TrainingRun(config, folder, resume=resume, extend=extend)
    if is_first:
        terminal.print(training.data.summary(), f'\n{training.recipe.title}: {folder}\n', sep='\n', soft_wrap=True)
        if config.log_tensorboard:
            reports.append(TensorBoard(folder))
        if config.log_wandb:
            reports.append(WandB(folder, folder.name, config.wandb_project, asdict(config)))
    training.report = Reports(reports)
    try:
        training.run()
    finally:
        training.report.close()
    if is_first:
        terminal.print(
            f'{folder}: checkpoints, summary.csv, matrix.json and pictures\n'
            f'next: sfsc-timm eval --checkpoint {training.smallest_checkpoint} --data {config.data} ...',
            soft_wrap=True,
        )


class _Terminal(Report):
    """Progress bar with the time to go, a line per epoch, tables of the matrix."""

    def __init__(self, terminal: Any, config: TrainConfig) -> None:
        self._terminal = terminal
        self._config = config
        self._bar: Any = None
        self._line: Any = None

    def on_stage(self, name: str, loop: Loop) -> None:
        self.close()
        if self._terminal.is_terminal:
            self._bar = progress_bar(self._terminal)
            self._bar.start()
            label = ' '.join(part for part in (self._config.recipe, name) if part)
            self._line = self._bar.add_task(label, total=loop.total, completed=loop.updates)

    def on_step(self, loop: Loop) -> None:
        if self._bar is not None:
            self._bar.update(self._line, completed=loop.updates)

    def on_row(self, name: str, row: dict[str, Any]) -> None:
        losses = ' '.join(f'{value:.3f}' for key, value in row.items() if key.startswith('loss_'))
        parts = [f'{name} epoch {row["epoch"]:.0f}/{self._config.epochs}', f'lr {row["lr"]:.2g}', f'loss {losses}']
        if 'conflict_rate' in row:
            parts.append(f'conflicts {100 * row["conflict_rate"]:.0f}%')
        if 'mAP_diagonal' in row:
            cross = f' cross {row["mAP_cross"]:.1f}' if 'mAP_cross' in row else ''
            parts.append(f'mAP {row["mAP_diagonal"]:.1f}{cross}')
        self._terminal.print('  '.join(parts).strip() + f'  {row["seconds"]:.0f} s', soft_wrap=True)

    def on_matrix(self, name: str, matrix: Any, is_last: bool) -> None:  # noqa: ARG002
        if is_last:
            self.close()
            self._terminal.print('', matrix_table(matrix), summary(matrix))
            if by_size(matrix):
                self._terminal.print('', size_table(matrix), sep='\n', soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _join_processes() -> None:
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    dist.init_process_group('nccl' if cuda else 'gloo')
    if dist.get_rank():
        logging.getLogger('sfsc_timm').setLevel(logging.ERROR)


def _set_threads(config: TrainConfig) -> None:
    if config.threads:
        use_threads(config.threads)
