"""Evaluates a checkpoint: every query width against every gallery width.

Prints and saves mAP, rank-k and mINP of all pairs, whether each cross-test beats the weaker self-test and by how much,
the update gain (the share of a better gallery's accuracy that a smaller query gets: 0 for none, 1 for all of it), and
what each width costs. Writes matrix.json, matrix.png and accuracy-cost.png.

  sfsc-timm eval --checkpoint quickstart --data glyphs
  sfsc-timm eval --checkpoint last.pth.tar --data market1501 --data-dir Market-1501-v15.09.15 --input-size 3 256 128
  sfsc-timm eval --checkpoint hf-hub:user/name --widths 0.25 1 --data emoji --data-dir emoji --flip
  sfsc-timm eval --checkpoint old/w0.25 --gallery-checkpoint new/w1 --data folder --data-dir photos

With --dims, a checkpoint trained with embed_dims is evaluated at each of these sizes, the first numbers of the same
embeddings, and a table shows what a width is worth at each size, which is what an item takes in a gallery. matrix.json
then is the matrix of the largest size, and holds those of all under "by_dim".

  sfsc-timm eval --checkpoint last.pth.tar --data glyphs --dims         # all of its sizes
  sfsc-timm eval --checkpoint last.pth.tar --data glyphs --dims 64 256

With two checkpoints, A are the sub-models of the first and B those of the second; all pairs are shown, queries of A
in a gallery of B being the rows A, columns B.

"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._device import find_device
from .._files import write_json
from ..evaluation import (
    CompatibilityMatrix,
    Embedder,
    KReciprocal,
    by_size,
    evaluate,
    plot_accuracy_cost,
    plot_matrix,
    si_number,
    size_cells,
    summary,
)
from ..evaluation.tables import update_gain
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_data_arguments,
    embed_dim,
    load_model,
    read_data,
    serve,
    suited,
    track,
    whole_number,
)
from ._terminal import cell, console, matrix_table, new_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..checkpoints import Checkpoint
    from ..data import RetrievalData
    from ..evaluation import Distance

NOTES = CHECKPOINT


@dataclass(frozen=True, eq=False)
class Side:
    """A checkpoint that takes part.

    Attributes:
        checkpoint: The model and how images are prepared for it.
        widths: Its widths that are evaluated.
        label: What the names of its sub-models begin with, where there are two checkpoints.
    """

    checkpoint: Checkpoint
    widths: Sequence[float]
    label: str = ''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_checkpoint_arguments(parser)
    add_data_arguments(parser, required=True)
    group = parser.add_argument_group('evaluation')
    group.add_argument('--widths', type=float, nargs='+', metavar='W', help='widths of --checkpoint to evaluate (all)')
    group.add_argument(
        '--dims', type=whole_number(1), nargs='*', metavar='N', help='embedding sizes to evaluate (none named: all)'
    )
    group.add_argument(
        '--gallery-checkpoint', metavar='CHECKPOINT', help='another model to embed the gallery, and queries, too'
    )
    group.add_argument(
        '--gallery-widths', type=float, nargs='+', metavar='W', help='widths of --gallery-checkpoint (all)'
    )
    group.add_argument(
        '--distance', choices=('cosine', 'euclidean'), default='cosine', help='what ranks the gallery (%(default)s)'
    )
    group.add_argument('--rerank', action='store_true', help='re-rank by k-reciprocal neighbours (20, 6, 0.3)')
    group.add_argument(
        '--output', type=Path, default=Path('evaluation'), metavar='DIR', help='folder for results (%(default)s)'
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    sides = _load(args)
    dims = _sizes(sides, args)
    data = read_data(args)
    if args.rerank and data.shared:
        raise ValueError(f'--rerank needs a gallery apart from the queries; those of {data.name} are one.')
    terminal.print(data.summary(), '', sep='\n')
    args.output.mkdir(parents=True, exist_ok=True)  # now, should it not be possible
    matrix = measure(sides, data, args, distance=args.distance, rerank=args.rerank, dims=dims)
    save(terminal, matrix, args.output)
    ids = zip(*((side.checkpoint.space, side.checkpoint.compatibility) for side in sides), strict=True)
    if all(len(set(declared)) > 1 for declared in ids):
        terminal.print(
            'The checkpoints declare different metric spaces: unless they were trained to agree, expect chance.'
        )


def measure(
    sides: Sequence[Side],
    data: RetrievalData,
    args: argparse.Namespace,
    *,
    distance: Distance = 'cosine',
    rerank: bool = False,
    dims: Sequence[int] | None = None,
) -> CompatibilityMatrix:
    """The matrix of one checkpoint, or of two, with what it was measured on and by which settings.

    Args:
        sides: The checkpoints, on the device; the second, if there is one, embeds the gallery.
        data: The benchmark.
        args: Arguments of a command with those of checkpoints and of data.
        distance: 'cosine' or 'euclidean'.
        rerank: Re-rank by k-reciprocal neighbours first.
        dims: Embedding sizes; None for all numbers.
    """
    sides = [replace(side, checkpoint=suited(side.checkpoint, data, args)) for side in sides]
    embedders = [_embedder(side, data, args) for side in sides]
    matrix = evaluate(
        embedders[0],
        embedders[1] if len(embedders) > 1 else None,
        data,
        device=find_device(args.device),
        flip=args.flip,
        distance=distance,
        rerank=KReciprocal() if rerank else None,
        timed=True,
        dims=dims,
    )
    matrix.info.update(
        sources=[_source(name, sides) for name in matrix.names],
        device=find_device(args.device).type,
        checkpoints=[
            {'source': c.source, 'compatibility': c.compatibility, **c.preprocessing.to_dict()}
            for c in (side.checkpoint for side in sides)
        ],
        settings={name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items() if name != 'run'},
    )
    return matrix


def save(terminal: Console, matrix: CompatibilityMatrix, folder: Path) -> None:
    """Prints a matrix of `measure`, and writes it with its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'matrix.json', matrix.to_dict())
    for dim, smaller in list(by_size(matrix).items())[:-1]:
        terminal.print(f'{dim} numbers', matrix_table(smaller), f'{summary(smaller)}\n', sep='\n')
    terminal.print(matrix_table(matrix), gain_table(matrix), cost_table(matrix), summary(matrix))
    if by_size(matrix):
        terminal.print('', size_grid(matrix), sep='\n')
    plot_matrix(matrix, folder / 'matrix.png', title=f'Cross-width retrieval on {matrix.info["data"]}')
    plot_accuracy_cost(matrix, folder / 'accuracy-cost.png')
    terminal.print(f'{folder}: matrix.json, matrix.png, accuracy-cost.png')


def _load(args: argparse.Namespace) -> list[Side]:
    """The checkpoints with their widths to evaluate."""
    if args.gallery_checkpoint is None:
        if args.gallery_widths is not None:
            raise ValueError(
                '--gallery-widths needs --gallery-checkpoint; one checkpoint is evaluated at all --widths.'
            )
        asked = [('', args.checkpoint, args.widths)]
    else:
        asked = [('A ', args.checkpoint, args.widths), ('B ', args.gallery_checkpoint, args.gallery_widths)]
    sides: list[Side] = []
    for label, source, widths in asked:
        checkpoint = load_model(args, source)
        chosen = checkpoint.widths if widths is None else tuple(dict.fromkeys(widths))
        if not set(chosen) <= set(checkpoint.widths):
            raise ValueError(f'{source!r} has the widths {checkpoint.widths}, asked for were {chosen}.')
        sides.append(Side(checkpoint, chosen, label))
    sizes = {side.checkpoint.source: embed_dim(side.checkpoint, side.widths[0], args) for side in sides}
    if len(set(sizes.values())) > 1 and args.dims is None:
        raise ValueError(f'the checkpoints have embeddings of different sizes and cannot be compared: {sizes}.')
    return sides


def _sizes(sides: Sequence[Side], args: argparse.Namespace) -> list[int] | None:
    """The embedding sizes to evaluate, ascending; None where all numbers are."""
    if args.dims is None:
        return None
    known = [side.checkpoint.embed_dims for side in sides]
    common = sorted(set.intersection(*map(set, known)))
    if not common or not set(args.dims) <= set(common):
        raise ValueError(
            f'--dims must be among {tuple(common)}, the sizes that were trained (embed_dims), got {tuple(args.dims)}'
        )
    return sorted(set(args.dims)) or common


def _embedder(side: Side, data: RetrievalData, args: argparse.Namespace) -> Embedder:
    """The checkpoint with the batches that it is to embed, under progress bars."""
    splits = {'query': data.query, 'gallery': data.gallery}
    loaders = {name: serve(side.checkpoint, samples, args, data) for name, samples in splits.items()}
    batches = {name: track(loader, len(loader), side.label + name) for name, loader in loaders.items()}
    size = side.checkpoint.preprocessing.input_size
    return Embedder(side.checkpoint.model, **batches, widths=side.widths, label=side.label, input_size=size)


def _source(name: str, sides: Sequence[Side]) -> str:
    """Where a sub-model of that name came from."""
    return next(side.checkpoint.source for side in sides if name.startswith(side.label))


def size_grid(matrix: CompatibilityMatrix) -> Table:
    """What each width is worth at each embedding size."""
    heads, rows = size_cells(matrix)
    made = new_table(
        f'mAP by embedding size (bytes of a gallery item): in a gallery of its own / of {matrix.names[-1]}', *heads
    )
    for row in rows:
        made.add_row(*row)
    return made


def gain_table(matrix: CompatibilityMatrix) -> Table:
    """What each cross-test gains over the weaker self-test, red where it loses, and the update gain."""
    made = new_table(
        'Gain over the weaker self-test in mAP, and /update gain of smaller queries', 'query', *matrix.names
    )
    for i, name in enumerate(matrix.names):
        cells = [cell('·')] * len(matrix.names)
        for j, gain in enumerate(matrix.gain[i]):
            if j != i:
                text = f'{gain:+.1f}' + (f'/{update_gain(matrix, i, j)}' if i < j else '')
                cells[j] = cell(text, '' if matrix.compatible[i, j] else 'red')
        made.add_row(name, *cells)
    return made


def cost_table(matrix: CompatibilityMatrix) -> Table:
    """What each sub-model costs."""
    info = matrix.info
    made = new_table(f'Cost of an image ({info["device"]})', 'width', 'params', 'MACs', 'latency', 'gallery item')
    rows = zip(matrix.params or (), matrix.macs or (), info['latency_ms'], info['bytes_per_item'], strict=True)
    for name, width, (params, macs, latency, size) in zip(matrix.names, matrix.widths, rows, strict=True):
        made.add_row(f'{name}  {width:g}', si_number(params), si_number(macs), f'{latency:.2f} ms', f'{size} B')
    return made
