"""Exports widths as ONNX, for devices that have no PyTorch.

Each width becomes a model of its own size with any number of images per batch, compared with PyTorch before it is
kept, and a preprocessing.json that says how an image becomes its input:

  sfsc-timm export quickstart --output onnx
  sfsc-timm export runs/emoji/model_best.pth.tar --widths 0.25 0.5 --output onnx --float16
  sfsc-timm export quickstart --widths 0.25 --int8 --data glyphs --output onnx
  sfsc-timm export quickstart --widths 0.25 --int8 --int8-images photos --output onnx

--int8 adds model.int8.onnx, whose ranges come from images of --int8-images, or of --data (its training images). The
last layer stays in floating point, and first layers do where that is faster on this machine; int8.json says which,
and how fast each choice was. With --data the loss in mAP is measured and written there, too: in a gallery of the
model's own embeddings, and in one that the widest width embedded in floating point. --float16 adds model.float16.onnx
for devices that compute in half precision; a CPU is slower with it.

"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from .._files import write_json
from ..models._sizes import check_size
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
    whole_number,
)
from ._ranges import range_images
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
        '--dim', type=whole_number(1), metavar='N', help='embedding size, one of those that were trained (the largest)'
    )
    group.add_argument(
        '--output', type=Path, default=Path('onnx'), metavar='DIR', help='folder for the files (%(default)s)'
    )
    group.add_argument('--int8', action='store_true', help='add each model in 8 bits')
    group.add_argument(
        '--int8-images', type=Path, metavar='DIR', help='images that tell int8 the ranges of activations (of --data)'
    )
    group.add_argument(
        '--int8-count', type=whole_number(1), default=256, metavar='N', help='how many of them (%(default)s)'
    )
    group.add_argument('--float16', action='store_true', help='add each model in half precision')
    group.add_argument(
        '--opset', type=whole_number(1), metavar='N', help="version of ONNX's operators (the exporter's)"
    )
    group.add_argument('--dynamic-size', action='store_true', help='models take images of any height and width')
    add_data_arguments(parser, required=False)


_COSTS = ('width', 'float MB', 'int8 MB', 'float16 MB', 'float ms', 'int8 ms', 'float layers')
_LOSSES = (
    'width',
    'mAP float',
    'mAP int8',
    'mAP int8 query',
    'mAP loss',
    'mAP float in φ',
    'mAP int8 in φ',
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
    if args.dim is not None:
        check_size(checkpoint.embed_dims, args.dim)
    if args.int8 and args.data is None and args.int8_images is None:
        raise ValueError(
            '--int8 needs images to find the ranges of activations, got none; name a folder by --int8-images, or --data'
        )
    data = read_data(args) if args.data is not None else None
    checkpoint = suited(checkpoint, data, args) if data is not None else checkpoint
    args.output.mkdir(parents=True, exist_ok=True)  # now, should it not be possible
    ranges = range_images(checkpoint, args.int8_images, data, args.int8_count, args) if args.int8 else []
    rows = [_export(checkpoint, width, ranges, args) for width in widths]
    if data is not None:
        _add_losses(rows, checkpoint, data, args)
    for row in rows if args.int8 else ():
        choice = {**row.pop('choice'), 'range_images': sum(map(len, ranges))}
        write_json(_folder(args, row['width']) / 'int8.json', {**row, **choice, 'data': data.name if data else None})
    terminal.print(_table(rows, 'ONNX Runtime, CPU, one image', _COSTS))
    if data is not None:
        terminal.print(_table(rows, f'mAP in percent on {data.name}', _LOSSES))
    terminal.print(f'{args.output}: {", ".join(f"w{width:g}" for width in widths)}')


def _folder(args: argparse.Namespace, width: float) -> Path:
    return args.output / f'w{width:g}'


def _export(checkpoint: Checkpoint, width: float, ranges: list[Tensor], args: argparse.Namespace) -> dict[str, Any]:
    """Writes one width; returns what the table shows of it."""
    from ..evaluation import latencies
    from ..export import export_half, export_onnx, onnx_session, quantise_fastest, write_preprocessing

    folder = _folder(args, width)
    dense = checkpoint.model.extract(width, dim=args.dim).cpu().eval()
    size = checkpoint.preprocessing.input_size
    exact = export_onnx(dense, folder / 'model.onnx', size, opset=args.opset, dynamic_size=args.dynamic_size)
    write_preprocessing(folder / 'preprocessing.json', checkpoint, width, args.dim, dynamic_size=args.dynamic_size)
    row: dict[str, Any] = {'width': width}
    timed = {'float': exact}
    if args.int8:
        timed['int8'] = folder / 'model.int8.onnx'
        row['choice'] = quantise_fastest(exact, timed['int8'], ranges)
        row['float layers'] = row['choice']['float_layers']
    for name, seconds in latencies({n: onnx_session(p) for n, p in timed.items()}, _blank(checkpoint)).items():
        row[f'{name} MB'] = timed[name].stat().st_size / 1e6
        row[f'{name} ms'] = 1000 * seconds
    if args.float16:
        row['float16 MB'] = export_half(exact, folder / 'model.float16.onnx').stat().st_size / 1e6
    return row


def _blank(checkpoint: Checkpoint) -> Tensor:
    import torch

    return torch.zeros(1, *checkpoint.preprocessing.input_size)


def _add_losses(
    rows: list[dict[str, Any]], checkpoint: Checkpoint, data: RetrievalData, args: argparse.Namespace
) -> None:
    """Adds what int8 costs in mAP, in its own gallery, in the float model's and in that of φ, the widest width."""
    from ..evaluation import GroundTruth, embed
    from ..export import quantisation_loss

    query, gallery = (
        Images(lambda samples=samples: serve(checkpoint, samples, args, data), name)  # type: ignore[misc]
        for name, samples in (('query', data.query), ('gallery', data.gallery))
    )
    gallery = query if data.shared else gallery
    widest = checkpoint.widths[-1]
    phi = embed(checkpoint.model, gallery, [widest], device=find_device(args.device))[widest][:, : args.dim]
    for row in rows:
        folder = _folder(args, row['width'])
        exact, quantised = folder / 'model.onnx', folder / 'model.int8.onnx'
        found = quantisation_loss(exact, quantised, query, gallery, GroundTruth.of(data), phi)
        row.update({f'mAP {name}': value for name, value in found.items()})


def _table(rows: list[dict[str, Any]], title: str, names: tuple[str, ...]) -> Table:
    columns = [name for name in names if name in rows[0]]
    made = new_table(title, *(name.replace(' ', '\n', 1) for name in columns))
    for row in rows:
        made.add_row(*(_cell(name, row[name]) for name in columns))
    return made


def _cell(name: str, value: Any) -> str:
    return f'{value:g}' if name == 'width' else f'{value:.2f}' if isinstance(value, float) else str(value)
