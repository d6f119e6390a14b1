"""Publishes a checkpoint on the Hugging Face Hub: one repository, a branch for each width.

`main` holds the whole slimmable model. The branches w0.25, w0.5, ... hold one width each as a dense model, so a small
device downloads just its own, and timm alone loads it:

  timm.create_model('hf-hub:user/name@w0.25', pretrained=True)

First look at what would be written, then log in once and write it:

  sfsc-timm publish runs/emoji --repo user/name --dry-run
  hf auth login
  sfsc-timm publish runs/emoji --repo user/name --license apache-2.0
  sfsc-timm publish last.pth.tar --use-ema --repo user/name --private --onnx --data market1501 --data-dir market

CHECKPOINT is the folder of a training run (its best checkpoint, else its last), a folder of a whole slimmable model, a
.safetensors file with config.json beside it, or a .pth.tar.

The card is written from measurements. Accuracy comes from matrix.json beside the checkpoint, as training and
`sfsc-timm eval` write it; with --data it is measured first if it is not there. Cost is measured once and kept in
measurements.json. So the same checkpoint gives the same files: repeating the command commits nothing, and after an
interruption it completes what is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from .._files import scratch_folder
from . import evaluate
from ._options import add_checkpoint_arguments, add_data_arguments, asked_preprocessing, read_data
from ._terminal import console, new_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..checkpoints.source import Source
    from ..hub import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_checkpoint_arguments(parser, positional=True)
    group = parser.add_argument_group('repository')
    group.add_argument('--repo', required=True, metavar='USER/NAME', help='repository, created if it is not there')
    group.add_argument('--private', action='store_true', help='create the repository as a private one')
    group.add_argument('--dry-run', action='store_true', help='list every file and write nothing; needs no login')
    group.add_argument('--onnx', action='store_true', help='add each width as ONNX, with its preprocessing')
    group.add_argument('--output', type=Path, metavar='DIR', help='keep the files of every branch in this folder, too')
    group = parser.add_argument_group('card', 'what the model card says beside the measurements')
    group.add_argument('--license', metavar='ID', help='licence of the weights, as the Hub names it: apache-2.0')
    group.add_argument('--train-data', metavar='NAME', help='training data (that of the training run)')
    group.add_argument('--data-license', metavar='TEXT', help='terms under which the training data may be used')
    group.add_argument(
        '--command', metavar='TEXT', dest='train_command', help='command that trained the model (that of the run)'
    )
    group.add_argument('--use', metavar='TEXT', help='intended use of the model')
    group.add_argument(
        '--matrix', type=Path, metavar='FILE', help='measured accuracy to show (matrix.json beside the checkpoint)'
    )
    group.add_argument('--note', metavar='TEXT', help="what the accuracy is of, if it is another checkpoint's")
    add_data_arguments(parser, required=False)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ..checkpoints.source import open_source
    from ..hub import About, check_login, prepare, push
    from ..hub.plan import check_repo

    terminal = console()
    check_repo(args.repo)
    if not args.dry_run:
        check_login()
    about = About(args.license, args.train_data, args.data_license, args.train_command, args.note, args.use)
    with scratch_folder('publish') as scratch:
        folder = _folder(args.output, scratch)
        source = open_source(args.checkpoint, **_loading(args))
        if args.data is not None and args.matrix is None:
            _measure(terminal, source, args)
        with terminal.status('') as status:
            plan = prepare(
                source, args.repo, folder, about=about, matrix=args.matrix, onnx=args.onnx,
                on_step=lambda step: status.update(f'{step} ...'),
            )  # fmt: skip
        terminal.print(plan_table(plan))
        if args.dry_run:
            terminal.print('Nothing was written; leave --dry-run out to publish.')
            return
        commits = push(plan, private=args.private, on_branch=lambda name: terminal.print(f'{name} ...'))
    changed = [name for name, commit in commits.items() if commit]
    terminal.print(f'{", ".join(changed)} written' if changed else 'Nothing had changed, nothing was written')
    first = plan.branches[0]
    if first.plain:
        terminal.print(f"timm.create_model('hf-hub:{plan.repo}@{first.name}', pretrained=True)")
    terminal.print(f"sfsc_timm.load_width('{plan.repo}', {first.width:g})")


def plan_table(plan: Plan) -> Table:
    """Every file of every branch."""
    words = ('branch', 'needs', 'file', 'sha256')
    title = f'{plan.repo}, compatibility id {plan.compatibility}'
    made = new_table(title, 'branch', 'needs', 'file', 'bytes', 'sha256', left=words)
    for branch in plan.branches:
        first = branch.name, 'timm' if branch.plain else 'timm, sfsc-timm'
        for i, file in enumerate(branch.files):
            last = i == len(branch.files) - 1
            shown = ('', '') if i else first
            made.add_row(*shown, file.path, f'{file.size:,}', file.sha256[:12], end_section=last)
    return made


def _loading(args: argparse.Namespace) -> dict[str, Any]:
    return {
        'model': args.model,
        'model_kwargs': args.model_kwargs,
        'use_ema': args.use_ema,
        'data_config': asked_preprocessing(args),
    }


def _folder(output: Path | None, scratch: Path) -> Path:
    if output is None:
        return scratch
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f'--output must be an empty folder or none yet, {str(output)!r} holds files.')
    output.mkdir(parents=True, exist_ok=True)
    return output


def _measure(terminal: Console, source: Source, args: argparse.Namespace) -> None:
    """Evaluates the checkpoint on --data, unless a matrix of it lies beside it already."""
    if source.matrix_file.is_file() and _is_measured(source, args.data):
        return
    data = read_data(args)
    terminal.print(data.summary(), '', sep='\n')
    source.model.to(find_device(args.device))
    sizes = source.checkpoint.embed_dims
    side = evaluate.Side(source.checkpoint, source.checkpoint.widths)
    matrix = evaluate.measure([side], data, args, dims=sizes if len(sizes) > 1 else None)
    source.model.cpu()  # where files are made, and costs measured
    evaluate.save(terminal, matrix, source.folder)


def _is_measured(source: Source, data: str) -> bool:
    """Whether the matrix beside a checkpoint is of it, and on the data asked for."""
    file = source.matrix_file
    try:
        values = json.loads(file.read_text(encoding='utf-8'))
        measured_on = values.get('data'), values.get('settings', {}).get('data')
        declared = {entry['compatibility'] for entry in values.get('checkpoints', ())}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'{str(file)!r} is no compatibility matrix: {error}; delete it to measure again.') from error
    return data in measured_on and declared <= {source.checkpoint.compatibility}
