"""Measures what each width costs on this machine: latency, throughput and memory, in every form in which it can run.

The forms are PyTorch as it is (eager) and compiled, and ONNX Runtime in float32 (onnx) and int8. They take turns in
one process, so their ratios hold on a busy machine, too. Writes bench.json, and bench.png: mAP of the checkpoint's
matrix.json (or --matrix) against milliseconds, or the width where there is none.

  sfsc-timm bench quickstart
  sfsc-timm bench runs/photos --batches 1 8 --threads 2 --int8-images photos
  sfsc-timm bench sfsc_resnet18d --forms eager onnx --widths 0.25 1 --no-memory

Memory is what a fresh process grows by while it loads the model and embeds, beyond the libraries. Without
--int8-images the ranges of int8 come from noise: its times hold, its embeddings are not what `export` writes.

"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import write_json
from ._options import CHECKPOINT, add_checkpoint_arguments, load_model, whole_number
from ._ranges import range_images
from ._terminal import console, new_table

if TYPE_CHECKING:
    from ..evaluation import CompatibilityMatrix

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    from ..bench import FORMS

    add_checkpoint_arguments(parser, positional=True)
    group = parser.add_argument_group('bench')
    group.add_argument('--widths', type=float, nargs='+', metavar='W', help='widths to measure (all)')
    group.add_argument('--forms', nargs='+', choices=FORMS, default=FORMS, help='forms to measure (all)')
    group.add_argument(
        '--batches', type=whole_number(1), nargs='+', default=[1], metavar='N', help='images at a time (1)'
    )
    group.add_argument('--threads', type=whole_number(1, 1024), metavar='N', help="threads (torch's choice)")
    group.add_argument(
        '--repeats', type=whole_number(1), default=25, metavar='N', help='timed calls of each form (%(default)s)'
    )
    group.add_argument('--no-memory', action='store_true', help='leave memory out, which needs a process for each form')
    group.add_argument('--int8-images', type=Path, metavar='DIR', help='images that tell int8 the ranges (noise)')
    group.add_argument(
        '--matrix', type=Path, metavar='FILE', help='accuracy of the widths (matrix.json beside the checkpoint)'
    )
    group.add_argument(
        '--output', type=Path, default=Path('bench'), metavar='DIR', help='folder for the results (%(default)s)'
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    import torch

    from ..bench import bench_table, measure_width, plot_accuracy_latency
    from ..checkpoints.measurements import machine

    terminal = console()
    if args.flip:
        raise ValueError('--flip averages two embeddings, and would be timed twice; leave it out')
    args.device = 'cpu'  # where ONNX Runtime computes, too
    checkpoint = load_model(args, args.checkpoint)
    widths = checkpoint.widths if args.widths is None else tuple(dict.fromkeys(args.widths))
    if not set(widths) <= set(checkpoint.widths):
        raise ValueError(f'--widths must be among {checkpoint.widths}, which the checkpoint has, got {widths}')
    matrix = _accuracy(args)
    args.output.mkdir(parents=True, exist_ok=True)  # now, should it not be possible
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    ranges = [] if args.int8_images is None else range_images(checkpoint, args.int8_images, None, 64, args)
    size = checkpoint.preprocessing.input_size
    timings = []
    for width in widths:
        timings += measure_width(
            checkpoint.model.extract(width).eval(), width, size, args.forms,
            batches=args.batches, ranges=ranges, repeats=args.repeats, memory=not args.no_memory,
        )  # fmt: skip
    rows = bench_table(timings)
    made = new_table(f'{"x".join(map(str, size))}, {machine()}; x: faster than onnx', *rows[0])
    for row in rows:
        made.add_row(*row.values())
    terminal.print(made)
    values = {'machine': machine(), 'input_size': size, 'checkpoint': args.checkpoint}
    write_json(args.output / 'bench.json', {**values, 'timings': [asdict(timing) for timing in timings]})
    plot_accuracy_latency(timings, matrix, args.output / 'bench.png', machine())
    terminal.print(f'{args.output}: bench.json, bench.png')


def _accuracy(args: argparse.Namespace) -> CompatibilityMatrix | None:
    """What was measured of the checkpoint, if that is there."""
    from ..checkpoints.source import read_matrix

    if args.matrix is not None:
        return read_matrix(args.matrix)
    path = Path(args.checkpoint.removeprefix('local-dir:')).expanduser()
    file = (path if path.is_dir() else path.parent) / 'matrix.json'
    return read_matrix(file) if path.exists() and file.is_file() else None
