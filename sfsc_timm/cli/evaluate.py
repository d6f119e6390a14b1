"""Evaluates a checkpoint: every query width against every gallery width.

Prints and saves mAP, rank-k and mINP of all pairs, whether each cross-test beats the weaker self-test and by how much,
and what each width costs. Writes matrix.json, matrix.png and accuracy-cost.png.

  sfsc-timm eval --checkpoint quickstart --data glyphs
  sfsc-timm eval --checkpoint last.pth.tar --data market1501 --data-dir Market-1501-v15.09.15 --input-size 3 256 128
  sfsc-timm eval --checkpoint hf-hub:user/name --widths 0.25 1 --data emoji --data-dir emoji --flip
  sfsc-timm eval --checkpoint old/w0.25 --gallery-checkpoint new/w1 --data folder --data-dir photos

With two checkpoints, A are the sub-models of the first and B those of the second; all pairs are shown, queries of A
in a gallery of B being the rows A, columns B.

"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._device import find_device
from .._files import write_json
from ..evaluation import (
    CompatibilityMatrix,
    Cost,
    GroundTruth,
    KReciprocal,
    bytes_per_item,
    latency,
    model_cost,
    paper_name,
    plot_accuracy_cost,
    plot_matrix,
    si_number,
    summary,
)
from ..evaluation.matrix import matrix_of
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_data_arguments,
    embed_all,
    embed_dim,
    load_model,
    read_data,
    serve,
    suited,
)
from ._terminal import console, matrix_table

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..data import RetrievalData

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_checkpoint_arguments(parser)
    add_data_arguments(parser, required=True)
    group = parser.add_argument_group('evaluation')
    group.add_argument('--widths', type=float, nargs='+', metavar='W', help='widths to evaluate (all)')
    group.add_argument('--gallery-checkpoint', metavar='CHECKPOINT', help='another model for the gallery')
    group.add_argument('--gallery-widths', type=float, nargs='+', metavar='W', help='its widths (all)')
    group.add_argument('--distance', choices=('cosine', 'euclidean'), default='cosine', help='(%(default)s)')
    group.add_argument('--rerank', action='store_true', help='k-reciprocal re-ranking (20, 6, 0.3)')
    group.add_argument('--output', type=Path, default=Path('evaluation'), help='folder for results (%(default)s)')


@dataclass(frozen=True, eq=False)
class Member:
    """One sub-model with its embeddings and cost.

    Attributes:
        name: Row and column of the matrix.
        source: Its checkpoint.
        width: Its width.
        query: Query embeddings (Nq, D).
        gallery: Gallery embeddings (Ng, D).
        cost: Parameters and multiply-adds.
        seconds: Median time of one image.
    """

    name: str
    source: str
    width: float
    query: torch.Tensor
    gallery: torch.Tensor
    cost: Cost
    seconds: float


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    loaded = _load(args)
    data = read_data(args)
    if args.rerank and data.shared:
        raise ValueError(f'--rerank needs a gallery apart from the queries; those of {data.name} are one.')
    terminal.print(data.summary(), '', sep='\n')
    members: list[Member] = []
    for prefix, checkpoint, widths in loaded:
        checkpoint = suited(checkpoint, data, args)  # noqa: PLW2901
        found, readable = _embed(prefix, checkpoint, widths, data, args)
        members += found
    data = readable
    members.sort(key=lambda member: (member.cost.macs, member.name))
    matrix = _evaluate(members, data, args)
    matrix.info.update(
        data=data.name,
        checkpoints=[
            {'source': c.source, 'compatibility': c.compatibility, **suited(c, data, args).preprocessing.to_dict()}
            for _, c, _ in loaded
        ],
        settings={name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items() if name != 'run'},
    )
    args.output.mkdir(parents=True, exist_ok=True)
    write_json(args.output / 'matrix.json', matrix.to_dict())
    terminal.print(
        matrix_table(matrix), gain_table(matrix), cost_table(members, find_device(args.device)), summary(matrix)
    )
    if len({c.compatibility for _, c, _ in loaded}) > 1:
        terminal.print(
            'The checkpoints declare different metric spaces: unless they were trained to agree, expect chance.'
        )
    plot_matrix(matrix, args.output / 'matrix.png', title=f'Cross-width retrieval on {data.name}')
    plot_accuracy_cost(matrix, args.output / 'accuracy-cost.png')
    terminal.print(f'{args.output}: matrix.json, matrix.png, accuracy-cost.png')


def _load(args: argparse.Namespace) -> list[tuple[str, Checkpoint, Sequence[float]]]:
    """The checkpoints, each with the prefix of its names and its widths to evaluate."""
    if args.gallery_checkpoint is None:
        if args.gallery_widths is not None:
            raise ValueError(
                '--gallery-widths needs --gallery-checkpoint; one checkpoint is evaluated at all --widths.'
            )
        asked = [('', args.checkpoint, args.widths)]
    else:
        asked = [('A ', args.checkpoint, args.widths), ('B ', args.gallery_checkpoint, args.gallery_widths)]
    loaded: list[tuple[str, Checkpoint, Sequence[float]]] = []
    for prefix, source, widths in asked:
        checkpoint = load_model(args, source)
        chosen = checkpoint.widths if widths is None else tuple(dict.fromkeys(widths))
        if not set(chosen) <= set(checkpoint.widths):
            raise ValueError(f'{source!r} has the widths {checkpoint.widths}, asked for were {chosen}.')
        loaded.append((prefix, checkpoint, chosen))
    sizes = {c.source: embed_dim(c, widths[0], args) for _, c, widths in loaded}
    if len(set(sizes.values())) > 1:
        raise ValueError(f'the checkpoints have embeddings of different sizes and cannot be compared: {sizes}.')
    return loaded


def _embed(
    prefix: str, checkpoint: Checkpoint, widths: Sequence[float], data: RetrievalData, args: argparse.Namespace
) -> tuple[list[Member], RetrievalData]:
    """Embeds query and gallery at all widths; returns the sub-models and the data without unreadable images."""
    places: list[list[int]] = []
    sides: list[dict[float, torch.Tensor]] = []
    for split, samples in (('query', data.query), ('gallery', data.gallery)):
        if split == 'gallery' and data.shared:
            sides.append(sides[0])
            places.append(places[0])
            continue
        found, kept = embed_all(checkpoint, serve(checkpoint, samples, args, data), widths, args, f'{prefix}{split}')
        sides.append(found)
        places.append(kept)
    members = [
        Member(
            prefix + paper_name(width), checkpoint.source, width, sides[0][width], sides[1][width],
            *_cost(checkpoint, width, find_device(args.device)),
        )
        for width in widths
    ]  # fmt: skip
    query, gallery = ([s[i] for i in kept] for s, kept in zip((data.query, data.gallery), places, strict=True))
    return members, replace(data, query=query, gallery=gallery)


def _cost(checkpoint: Checkpoint, width: float, device: torch.device) -> tuple[Cost, float]:
    dense = checkpoint.model.extract(width).eval()
    return model_cost(dense, checkpoint.preprocessing.input_size), latency(
        dense, torch.zeros(1, *checkpoint.preprocessing.input_size, device=device)
    )


def _evaluate(members: Sequence[Member], data: RetrievalData, args: argparse.Namespace) -> CompatibilityMatrix:
    return matrix_of(
        [m.width for m in members],
        [m.query for m in members],
        [m.gallery for m in members],
        GroundTruth.of(data),
        names=[m.name for m in members],
        ks=data.ks,
        distance=args.distance,
        rerank=KReciprocal() if args.rerank else None,
        params=[m.cost.params for m in members],
        macs=[m.cost.macs for m in members],
        info={
            'sources': [m.source for m in members],
            'latency_ms': [1000 * m.seconds for m in members],
            'bytes_per_item': [bytes_per_item(m.gallery.shape[1]) for m in members],
        },
    )


def gain_table(matrix: CompatibilityMatrix) -> Any:
    """What each cross-test gains over the weaker self-test, red where it loses."""
    table = _table('Gain over the weaker self-test, mAP', 'query', *matrix.names)
    for i, name in enumerate(matrix.names):
        cells = [
            f'{gain:+.1f}' if matrix.compatible[i, j] else f'[red]{gain:+.1f}[/]'
            for j, gain in enumerate(matrix.gain[i])
        ]
        cells[i] = '·'
        table.add_row(name, *cells)
    return table


def cost_table(members: Sequence[Member], device: torch.device) -> Any:
    """What each sub-model costs."""
    table = _table(f'Cost of an image ({device.type})', 'width', 'params', 'MACs', 'latency', 'gallery item')
    for m in members:
        size = bytes_per_item(m.gallery.shape[1])
        time = f'{1000 * m.seconds:.2f} ms'
        table.add_row(f'{m.name}  {m.width:g}', si_number(m.cost.params), si_number(m.cost.macs), time, f'{size} B')
    return table


def _table(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify='right', no_wrap=True)
    return table
