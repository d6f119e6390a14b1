"""What codes cost in accuracy, and how near the rates of `search --threshold` come, on the test set of a training run.

    python -m benchmarks.speed.gallery_codes glyphs-140/last.pth.tar --name glyphs-140
    python -m benchmarks.speed.gallery_codes emoji/last.pth.tar --data-dir emoji --name emoji

The checkpoint lies beside its args.yaml, which names the data. mAP of each pair of widths (query, gallery) with the
gallery in each type, the queries staying float32; the items after a shortlist are ranked by their bits. Rates: half
of the test identities, drawn ten times, make a labelled gallery, and the others, unknown to it, come as queries.
A model with `embed_dims` is measured at each of them, too, and what is lost is lost against all its numbers. Searches a
second are those of the test set's own items by full width, the best of five rounds in which all types take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.machine import save_json
from benchmarks.speed.turns import in_turns
from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.data import batches, load_data, make_transforms
from sfsc_timm.evaluation import GroundTruth, bytes_per_item, embed, retrieval_metrics
from sfsc_timm.evaluation.ranking import rank_block
from sfsc_timm.retrieval import Gallery, GalleryInfo, Scales, known_items, strangers_scores, threshold_of
from sfsc_timm.training import read_config

FIRST = 4096  # images by which the scales are fitted, as `sfsc-timm index` does
SHORTLISTS = (0, 100, 1000)
RATES, DRAWS = (0.01, 0.05, 0.1), 10
BATCHES = (1, 64)
DTYPES = ('float32', 'float16', 'int8', 'binary')
OF_SIZES = ('float32', 'int8', 'binary, 100 rescored')  # types in which each of `embed_dims` is measured

Sides = tuple[dict[float, Tensor], dict[float, Tensor]]


def map_of_bits(query: Tensor, gallery: Tensor, decoded: Tensor, truth: GroundTruth, shortlist: int) -> float:
    """The mAP of a ranking by bits, whose first items are ranked by their codes."""
    signs = [(part > 0).float() * 2 - 1 for part in (query, gallery)]
    found = []
    for indices in truth.evaluated.split(512):
        scores = signs[0][indices] @ signs[1].T / gallery.shape[1]  # in [-1, 1], higher where fewer bits differ
        if shortlist:
            best = (scores - torch.arange(len(gallery)) * 1e-7).topk(min(shortlist, len(gallery)), 1).indices
            full = normalize(query[indices], dim=1) @ normalize(decoded, dim=1).T
            scores.scatter_(1, best, full.gather(1, best) + 4)
        padded = torch.nn.functional.pad(scores, (0, -len(gallery) % 64), value=-torch.inf)
        found.append(rank_block(padded, *truth.matches(indices))[0])
    return 100 * float(torch.cat(found).mean())


def bytes_by_type(size: int) -> dict[str, int]:
    """Of an item whose embedding has this size, in memory."""
    types = {'float32': torch.float32, 'float16': torch.float16, 'int8': torch.int8}
    return {**{name: bytes_per_item(size, dtype) for name, dtype in types.items()}, 'binary in memory': -(-size // 8)}


def lost(table: dict[str, dict[str, float]], whole: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The mAP that each type loses against the whole embeddings in float32, over the pairs of widths."""
    values = {
        name: [whole[pair]['float32'] - cells[name] for pair, cells in table.items()]
        for name in next(iter(table.values()))
    }
    return {name: {'mean': mean(some), 'most': max(some)} for name, some in values.items()}


def of_sizes(sides: Sides, sizes: tuple[int, ...], truth: GroundTruth, whole: dict[str, Any]) -> dict[str, Any]:
    """Embeddings cut to their first numbers, by size."""
    result: dict[str, Any] = {}
    for size in sizes:
        first, second = ({width: part[:, :size] for width, part in side.items()} for side in sides)
        table = accuracy((first, second), truth, OF_SIZES)
        result[str(size)] = {'bytes_per_item': bytes_by_type(size), 'mAP': table, 'mAP_lost': lost(table, whole)}
        result[str(size)]['queries_per_second'] = speeds(second[max(second)])
        print(size, result[str(size)]['mAP_lost'], result[str(size)]['queries_per_second'], flush=True)
    return result


def speeds(items: Tensor, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Queries a second, by type, one at a time and 64 at a time."""
    steps: dict[tuple[str, int], Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            gallery = Gallery.create(Path(folder) / dtype, GalleryInfo('m', 1.0, items.shape[1], 'm', dtype))
            gallery.append([str(i) for i in range(len(items))], items, existing='skip')
            scan = gallery.scan()
            for batch in BATCHES:
                steps[dtype, batch] = partial(scan, items[:batch], 10, 'cosine')
        seconds = in_turns(steps, rounds)
    return {dtype: {f'of_{batch}': batch / min(seconds[dtype, batch]) for batch in BATCHES} for dtype in DTYPES}


def accuracy(sides: Sides, truth: GroundTruth, types: tuple[str, ...] | None = None) -> dict[str, dict[str, float]]:
    """The mAP by pair and type; None for all types."""
    result: dict[str, dict[str, float]] = {}
    for to, gallery in sides[1].items():
        scales = Scales.fit(gallery[:FIRST])
        decoded = scales.decode(scales.encode(gallery)[0])
        for width, query in sides[0].items():
            stored = {'float32': gallery, 'float16': gallery.half(), 'int8': decoded}
            cells = {
                name: retrieval_metrics(query, items, truth).mAP
                for name, items in stored.items()
                if types is None or name in types
            }
            for shortlist in SHORTLISTS:
                name = f'binary, {shortlist} rescored'
                if types is None or name in types:
                    cells[name] = map_of_bits(query, gallery, decoded, truth, shortlist)
            result[f'{width:g} in {to:g}'] = cells
            print(f'{width:g} in {to:g}', {name: round(value, 2) for name, value in cells.items()}, flush=True)
    return result


def rates(sides: Sides, truth: GroundTruth) -> dict[str, Any]:
    """Realised rates on identities that the gallery has never seen, by pair; and how many known ones are recognised."""
    result: dict[str, Any] = {}
    widths = list(sides[0])
    for width, to in ((widths[0], widths[0]), (widths[0], widths[-1]), (widths[-1], widths[-1])):
        realised: dict[float, list[float]] = {rate: [] for rate in RATES}
        accepted: dict[float, list[float]] = {rate: [] for rate in RATES}
        for seed in range(DRAWS):
            ids = truth.gallery_ids.unique()
            known = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[: len(ids) // 2]]
            items = torch.isin(truth.gallery_ids, known).nonzero()[:, 0]
            strangers = (~torch.isin(truth.query_ids, known)).nonzero()[:, 0]
            with tempfile.TemporaryDirectory() as folder:
                gallery = Gallery.create(folder, GalleryInfo('m', to, sides[1][to].shape[1], 'm'))
                names = [str(int(identity)) for identity in truth.gallery_ids[items]]
                gallery.append([str(int(i)) for i in items], sides[1][to][items], labels={'identity': names})
                chosen = known_items(names, 2000, seed)
                scores = strangers_scores(sides[1][width][items][chosen], [names[i] for i in chosen], gallery)
                best = gallery.scan()(sides[0][width][strangers], 1, 'cosine')[0][:, 0]
                # Of the known ones; where queries are in the gallery, but for the image itself.
                friends = sides[0][width][torch.isin(truth.query_ids, known)]
                own = gallery.scan()(friends, 2, 'cosine')[0][:, int(truth.same_set)]
            for rate in RATES:
                threshold = threshold_of(scores, rate).score
                realised[rate].append(float((best > threshold).float().mean()))
                accepted[rate].append(float((own > threshold).float().mean()))
        result[f'{width:g} in {to:g}'] = {
            f'{rate:g}': {
                'realised': mean(realised[rate]), 'least': min(realised[rate]), 'most': max(realised[rate]),
                'known_recognised': mean(accepted[rate]),
            }
            for rate in RATES
        }  # fmt: skip
        print(f'{width:g} in {to:g}', result[f'{width:g} in {to:g}'], flush=True)
    return result


def main() -> None:
    """Measures a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='of a training run')
    parser.add_argument('--data-dir', type=Path, help='where its data lies')
    parser.add_argument('--name', required=True, help='of the result')
    parser.add_argument('--no-rates', action='store_true', help='leave out those of `search --threshold`')
    parser.add_argument('--output', type=Path, default=Path('benchmarks/results/gallery'), help='where results go')
    args = parser.parse_args()
    config = read_config(args.checkpoint.with_name('args.yaml'))
    checkpoint = load_checkpoint_model(args.checkpoint)
    data = load_data(config['data'], args.data_dir, **config['data_kwargs'])
    transform = make_transforms(data, checkpoint.preprocessing)[1]
    model: Any = checkpoint.model
    sides = tuple(
        embed(model, (b.images for b in batches(samples, transform, mode=checkpoint.preprocessing.image_mode)), None)
        for samples in ((data.query,) if data.shared else (data.query, data.gallery))
    )
    truth, both = GroundTruth.of(data), (sides[0], sides[-1])
    size = next(iter(sides[0].values())).shape[1]
    table = accuracy(both, truth)
    found: dict[str, Any] = {
        'name': args.name, 'queries': len(truth.query_ids), 'items': len(truth.gallery_ids), 'numbers': size,
        'bytes_per_item': bytes_by_type(size), 'mAP': table, 'mAP_lost': lost(table, table),
        'queries_per_second': speeds(both[1][max(both[1])]),
    }  # fmt: skip
    print(found['mAP_lost'], found['queries_per_second'], flush=True)
    smaller = tuple(part for part in model.embed_dims if part < size)
    if smaller:
        found['sizes'] = of_sizes(both, smaller, truth, table)
    if not args.no_rates:
        found['rates'] = rates(both, truth)
    save_json(args.output / f'{args.name}.json', found)


if __name__ == '__main__':
    main()
