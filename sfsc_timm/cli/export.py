"""Exports widths as ONNX, for devices that have no PyTorch.

Each width becomes a model of its own size with any number of images per batch, compared with PyTorch before it is
kept, and a preprocessing.json that says how an image becomes its input:

  sfsc-timm export quickstart --output onnx
  sfsc-timm export runs/emoji/model_best.pth.tar --widths 0.25 0.5 --output onnx
  sfsc-timm export quickstart --widths 0.25 --int8 --data glyphs --output onnx

--int8 adds model.int8.onnx with weights of 8 bits (dynamic quantisation), and with --data its loss in mAP is measured
and written to int8.json: in a gallery of its own embeddings, and in one of the float model.

"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_json
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_data_arguments,
    check_data_arguments,
    load_model,
    read_data,
    serve,
    suited,
    track,
)
from ._terminal import console, new_table

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from ..checkpoints import Checkpoint
    from ..data import Batches, RetrievalData

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_checkpoint_arguments(parser, positional=True)
    group = parser.add_argument_group('export')
    group.add_argument('--widths', type=float, nargs='+', metavar='W', help='widths to export (all)')
    group.add_argument(
        '--output', type=Path, default=Path('onnx'), metavar='DIR', help='folder for the files (%(default)s)'
    )
    group.add_argument('--int8', action='store_true', help='add each model with weights of 8 bits')
    add_data_arguments(parser, required=False)


_COLUMNS = (
    'width',
    'float MB',
    'int8 MB',
    'float ms',
    'int8 ms',
    'mAP float',
    'mAP int8',
    'mAP int8 query',
    'mAP loss',
)


class Images:
    """Batches of images that can be read again, under a progress bar."""

    def __init__(self, make: Callable[[], Batches], label: str) -> None:
        self._make, self._label = make, label

    def __iter__(self) -> Iterator[Tensor]:
        loader = self._make()
        return (batch.images for batch in track(loader, len(loader), self._label))


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    if args.data is not None and not args.int8:
        raise ValueError('--data is what the loss of --int8 is measured on, got no --int8; add --int8, or leave it out')
    if args.flip:
        raise ValueError('--flip averages two embeddings, which no exported model does; leave it out')
    check_data_arguments(args)
    checkpoint = load_model(args, args.checkpoint)
    widths = checkpoint.widths if args.widths is None else tuple(dict.fromkeys(args.widths))
    if not set(widths) <= set(checkpoint.widths):
        raise ValueError(
            f'--widths must be among {checkpoint.widths}, which the checkpoint has; asked for were {widths}'
        )
    data = read_data(args) if args.data is not None else None
    checkpoint = suited(checkpoint, data, args) if data is not None else checkpoint
    args.output.mkdir(parents=True, exist_ok=True)  # now, should it not be possible
    rows = [_export(checkpoint, width, data, args) for width in widths]
    terminal.print(_table(rows, data))
    terminal.print(f'{args.output}: {", ".join(f"w{width:g}" for width in widths)}')


def _export(
    checkpoint: Checkpoint, width: float, data: RetrievalData | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Writes one width; returns what the table shows of it."""
    from ..evaluation import latency
    from ..export import export_onnx, onnx_session, quantise_onnx, write_preprocessing

    folder = args.output / f'w{width:g}'
    dense = checkpoint.model.extract(width).cpu().eval()
    exact = export_onnx(dense, folder / 'model.onnx', checkpoint.preprocessing.input_size)
    write_preprocessing(folder / 'preprocessing.json', checkpoint, width)
    files = {'float': exact}
    if args.int8:
        files['int8'] = quantise_onnx(exact, folder / 'model.int8.onnx')
    row: dict[str, Any] = {'width': width}
    for name, path in files.items():
        row[f'{name} MB'] = path.stat().st_size / 1e6
        row[f'{name} ms'] = 1000 * latency(onnx_session(path), _blank(checkpoint))
    if data is not None:
        row.update(_loss(checkpoint, data, files, args))
    if args.int8:
        write_json(folder / 'int8.json', {**row, 'data': None if data is None else data.name})
    return row


def _blank(checkpoint: Checkpoint) -> Tensor:
    import torch

    return torch.zeros(1, *checkpoint.preprocessing.input_size)


def _loss(
    checkpoint: Checkpoint, data: RetrievalData, files: dict[str, Path], args: argparse.Namespace
) -> dict[str, float]:
    from ..evaluation import GroundTruth
    from ..export import quantisation_loss

    sides: list[Iterable[Tensor]] = [
        Images(lambda samples=samples: serve(checkpoint, samples, args, data), name)  # type: ignore[misc]
        for name, samples in (('query', data.query), ('gallery', data.gallery))
    ]
    found = quantisation_loss(files['float'], files['int8'], sides[0], sides[1], GroundTruth.of(data))
    return {f'mAP {name}': value for name, value in found.items()}


def _table(rows: list[dict[str, Any]], data: RetrievalData | None) -> Table:
    title = 'ONNX Runtime, CPU, one image' + (f'; mAP in percent on {data.name}' if data is not None else '')
    columns = [name for name in _COLUMNS if name in rows[0]]
    made = new_table(title, *(name.replace(' ', '\n', 1) for name in columns))
    for row in rows:
        made.add_row(*(f'{row[name]:g}' if name == 'width' else f'{row[name]:.2f}' for name in columns))
    return made
