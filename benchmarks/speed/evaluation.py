"""Measure the evaluation: a whole compatibility matrix, ranking against torch.argsort, and search of a million items.

Three measurements, each in a fresh process so that peak memory is its own:

  matrix   m x m cells of mAP, CMC and mINP on synthetic embeddings (clusters, one noise level per width): seconds, and
           peak memory above the embeddings. Goal: at most 1 GB at 4 x 4 cells of 20,000 x 20,000, 256 numbers.
  ranking  the step that replaces sorting. Blocks of scores are drawn at random from all cells; on each block our
           ranking (AP, first hit and INP of its queries) and torch.argsort of the same scores (no metrics yet) run one
           after the other, in alternating order, on the same threads. The ratio of the medians is reported, alone
           ("ranking") and with the matrix product added to both sides ("with product"); both results are compared.
           Goal: ranking at least 5x faster, results equal.
  search   the 10 nearest of a million items: exact (ours) and, where it is installed, FAISS: flat (exact, in turn with
           ours) and inverted lists (with their recall). Queries per second, and memory above the embeddings.

Results are printed and written as JSON with the command, the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import save_json
from benchmarks.speed.turns import in_turns
from sfsc_timm.evaluation import GroundTruth, compatibility_matrix, query_statistics
from sfsc_timm.evaluation.ranking import rank_block
from sfsc_timm.evaluation.scores import score_blocks
from sfsc_timm.retrieval import FaissIndex, search

WIDTHS = {0.25: 0.95, 0.5: 0.85, 0.75: 0.8, 1.0: 0.75}  # width: noise around the centre of an identity
ROUNDS = 5  # timed calls of what takes turns


def main() -> None:
    """Run the chosen measurements."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    for name in args.only:
        print(f'{name} ...', flush=True)
        results[name] = in_fresh_process(MEASUREMENTS[name], args)
        print(json.dumps(results[name], indent=2), flush=True)
    save_json(args.output, {**results, 'other_load': [round(load, 1) for load in os.getloadavg()]})
    print(f'written to {args.output}')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='A quick look (seconds): python -m benchmarks.speed.evaluation --items 2000 --search-items 20000 '
        '--blocks 5 --output /tmp/evaluation.json',
    )
    add = parser.add_argument
    add('--only', nargs='+', choices=list(MEASUREMENTS), default=list(MEASUREMENTS), help='what to measure')
    add('--items', type=int, default=20_000, help='queries, and gallery items, of the matrix (20000)')
    add('--identities', type=int, default=1_000, help='identities they show, so items/identities relevant ones (1000)')
    add('--dim', type=int, default=256, help='numbers per embedding (256)')
    add('--blocks', type=int, default=31, help='blocks of 1024 queries drawn for the ranking (31)')
    add('--search-items', type=int, default=1_000_000, help='gallery items of the search (1000000)')
    add('--search-queries', type=int, default=512, help='queries of the search (512)')
    add('--threads', type=int, default=os.cpu_count(), help='threads for everything (all cores)')
    add('--output', type=Path, default=Path(__file__).parents[1] / 'results' / 'evaluation.json', help='JSON to write')
    return parser.parse_args()


def measure_matrix(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of a whole matrix, and its agreement with float64 on a few queries."""
    queries, galleries, truth = synthetic(args)
    before = reset_peak()
    start, cpu_start = time.perf_counter(), time.process_time()
    matrix = compatibility_matrix(queries, galleries, truth)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = peak_memory() - before
    return {
        'cells': [len(WIDTHS), len(WIDTHS)],
        'queries': args.items,
        'gallery': args.items,
        'dim': args.dim,
        'relevant_per_query': float(truth.num_relevant.double().mean()),
        'seconds': round(seconds, 2),
        'cpu_seconds_of_all_threads': round(cpu_seconds, 2),  # what it takes whatever else runs
        'peak_mb_above_embeddings': round(peak / 1e6, 1),
        'goal_mb': 1000,
        'mAP': matrix.mAP.round(3).tolist(),
        'largest_ap_difference_from_float64': compare_float64(queries, galleries, truth, 20),
    }


def measure_ranking(args: argparse.Namespace) -> dict[str, Any]:
    """Our ranking and torch.argsort, paired on the same blocks of scores."""
    queries, galleries, truth = synthetic(args)
    draw = random.Random(0)
    rows: list[dict[str, float]] = []
    for i in range(args.blocks + 1):
        q, g = draw.choice(list(WIDTHS)), draw.choice(list(WIDTHS))
        chosen = draw.choice(truth.evaluated.split(1024))
        rows.append(rank_pair(queries[q], galleries[g], truth, chosen, ours_first=i % 2 == 0))
    del rows[0]  # it warmed up
    ours, theirs, product = (median(row[name] for row in rows) for name in ('ours', 'argsort', 'product'))
    return {
        'blocks': args.blocks,
        'of_blocks': len(WIDTHS) ** 2 * -(-args.items // 1024),
        'scores_per_row': args.items,
        'microseconds_per_query': {
            'ours': round(ours * 1e6, 1),
            'argsort': round(theirs * 1e6, 1),
            'product': round(product * 1e6, 1),
        },
        'ratio_of_medians': round(theirs / ours, 2),
        'smallest_paired_ratio': round(min(row['argsort'] / row['ours'] for row in rows), 2),
        'ratio_with_product': round((theirs + product) / (ours + product), 2),
        'goal_ratio': 5,
        'largest_ap_difference': max(row['difference'] for row in rows),
    }


def rank_pair(
    query: Tensor, gallery: Tensor, truth: GroundTruth, chosen: Tensor, *, ours_first: bool
) -> dict[str, float]:
    """Seconds per query of our ranking, of argsort and of the matrix product on one block; difference in AP."""
    normalised = torch.nn.functional.normalize(gallery)
    start = time.perf_counter()
    torch.nn.functional.normalize(query[chosen]) @ normalised.T
    product = time.perf_counter() - start
    _, scores = next(score_blocks(query, gallery, chosen, 'cosine', len(chosen)))
    columns, relevant, junk = truth.matches(chosen)
    rows, entries = junk.nonzero(as_tuple=True)
    scores[rows, columns[rows, entries]] = -torch.inf  # both rank the very same numbers
    steps: dict[str, Callable[[], Any]] = {
        'ours': lambda: rank_block(scores, *truth.matches(chosen)),
        'argsort': lambda: torch.argsort(scores, dim=1, descending=True),
    }
    seconds, outputs = {'product': product / len(chosen)}, {}
    for name in ('ours', 'argsort') if ours_first else ('argsort', 'ours'):
        start = time.perf_counter()
        outputs[name] = steps[name]()
        seconds[name] = (time.perf_counter() - start) / len(chosen)
    expected = ap_of_order(scores, outputs['argsort'], columns, relevant)
    return {**seconds, 'difference': float((outputs['ours'][0] - expected).abs().max())}


def measure_search(args: argparse.Namespace) -> dict[str, Any]:
    """Throughput and memory of searching a large gallery."""
    generator = torch.Generator().manual_seed(0)
    gallery = torch.empty(args.search_items, args.dim)
    centres = torch.randn(max(1, args.search_items // 20), args.dim, generator=generator)
    for begin in range(0, args.search_items, 1 << 16):
        part = gallery[begin : begin + (1 << 16)]
        part.normal_(generator=generator).mul_(0.8)
        part += centres[torch.randint(len(centres), (len(part),), generator=generator)]
    query = centres[:: max(1, len(centres) // args.search_queries)][: args.search_queries]
    query = query + 0.8 * torch.randn(query.shape, generator=generator)
    result: dict[str, Any] = {
        'items': args.search_items,
        'queries': len(query),
        'dim': args.dim,
        'k': 10,
        'embeddings_mb': round(gallery.nbytes / 1e6, 1),
    }
    ours = partial(search, query, gallery, 10)
    before = reset_peak()
    _, exact = ours()
    result['exact_peak_mb_above_embeddings'] = round((peak_memory() - before) / 1e6, 1)
    try:
        import faiss
    except ImportError:
        faiss = None
    if faiss is None:
        result['exact_queries_per_second'] = round(len(query) / median(in_turns({'ours': ours}, ROUNDS)['ours']), 1)
        return result
    faiss.omp_set_num_threads(args.threads)
    result['faiss_version'] = faiss.__version__
    before = memory('VmRSS')
    flat = faiss.IndexFlatIP(args.dim)
    for part in gallery.split(1 << 16):
        flat.add(torch.nn.functional.normalize(part, dim=1).numpy())
    result['faiss_flat_index_mb'] = round((memory('VmRSS') - before) / 1e6, 1)
    theirs = partial(flat.search, torch.nn.functional.normalize(query, dim=1).numpy(), 10)
    result['faiss_flat_equal_to_ours'] = round(float((torch.from_numpy(theirs()[1]) == exact).double().mean()), 5)
    seconds = [median(times) for times in in_turns({'ours': ours, 'faiss': theirs}, ROUNDS).values()]
    result['exact_queries_per_second'], result['faiss_flat_queries_per_second'] = (
        round(len(query) / value, 1) for value in seconds
    )
    result['exact_speed_over_faiss_flat'] = round(seconds[1] / seconds[0], 3)
    del flat, theirs
    return {**result, 'faiss_lists': measure_lists(query, gallery, exact)}


def measure_lists(query: Tensor, gallery: Tensor, exact: Tensor) -> dict[str, Any]:
    """FAISS's inverted lists at three depths: throughput, recall, and what the index costs."""
    before, start = memory('VmRSS'), time.perf_counter()
    index = FaissIndex(gallery)
    lists: dict[str, Any] = {
        'build_seconds': round(time.perf_counter() - start, 1),
        'lists': index.index.nlist,
        'index_mb': round((memory('VmRSS') - before) / 1e6, 1),
    }
    for probes in (8, 32, 128):
        visit = partial(index.search, query, 10, probes=probes)
        found = (visit()[1][:, :, None] == exact[:, None, :]).any(2).double().mean()
        lists[f'probes_{probes}'] = {
            'queries_per_second': round(len(query) / median(in_turns({'visit': visit}, ROUNDS)['visit']), 1),
            'recall_of_exact_top_10': round(float(found), 4),
        }
    return lists


MEASUREMENTS = {'matrix': measure_matrix, 'ranking': measure_ranking, 'search': measure_search}


def synthetic(args: argparse.Namespace) -> tuple[dict[float, Tensor], dict[float, Tensor], GroundTruth]:
    """Clustered embeddings of all widths, identities and cameras."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(args.identities, args.dim, generator=generator)
    ids = [torch.randint(args.identities, (args.items,), generator=generator) for _ in range(2)]
    cameras = [torch.randint(6, (args.items,), generator=generator) for _ in range(2)]
    sides = []
    for identity in ids:
        # An item's own deviation is the same at all widths, as an unusual image is unusual to every sub-model.
        own = torch.randn(args.items, args.dim, generator=generator)
        shared = torch.randn(args.items, 16, generator=generator) @ torch.randn(16, args.dim, generator=generator) / 2
        sides.append(
            {
                width: centres[identity]
                + noise * (own + shared)
                + noise * torch.randn(args.items, args.dim, generator=generator)
                for width, noise in WIDTHS.items()
            }
        )
    return sides[0], sides[1], GroundTruth(*ids, *cameras)


def ap_of_order(scores: Tensor, order: Tensor, columns: Tensor, relevant: Tensor) -> Tensor:
    """Average precision from a full ranking; among equal scores everything has the last one's rank, as in ours."""
    marked = torch.zeros(order.shape, dtype=torch.bool)
    rows, entries = relevant.nonzero(as_tuple=True)
    marked[rows, columns[rows, entries]] = True
    result = []
    for row, hit in zip(scores.gather(1, order), marked.gather(1, order), strict=True):
        own = -row[hit]
        rank = torch.searchsorted(-row, own, right=True)
        result.append((torch.searchsorted(own, own, right=True) / rank.double()).mean())
    return torch.stack(result)


def compare_float64(
    queries: dict[float, Tensor], galleries: dict[float, Tensor], truth: GroundTruth, count: int
) -> float:
    """Largest difference in AP from a naive evaluation in float64, over `count` queries of two cells."""
    worst = 0.0
    for q, g in ((min(WIDTHS), max(WIDTHS)), (max(WIDTHS), max(WIDTHS))):
        statistics = query_statistics(queries[q], galleries[g], truth)
        gallery = torch.nn.functional.normalize(galleries[g].double(), dim=1)
        for i in range(0, len(statistics.query), max(1, len(statistics.query) // count)):
            index = statistics.query[i]
            scores = gallery @ torch.nn.functional.normalize(queries[q][index].double(), dim=0)
            same = truth.gallery_ids == truth.query_ids[index]
            keep = ~(same & (truth.gallery_cameras == truth.query_cameras[index]))
            order = scores[keep].argsort(descending=True)
            rank = same[keep][order].nonzero()[:, 0].double() + 1
            ap = (torch.arange(1, len(rank) + 1) / rank).mean()
            worst = max(worst, abs(float(ap - statistics.average_precision[i])))
    return worst


def memory(key: str) -> int:
    """A memory figure of this process in bytes: 'VmRSS' now, 'VmHWM' the peak."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


def reset_peak() -> int:
    """Forget the peak so far; returns the memory in use."""
    Path('/proc/self/clear_refs').write_text('5')
    return memory('VmRSS')


def peak_memory() -> int:
    """Largest resident memory since :func:`reset_peak`."""
    return memory('VmHWM')


def in_fresh_process(function: Callable[[argparse.Namespace], dict[str, Any]], args: argparse.Namespace) -> Any:
    """Run a measurement in a process of its own."""
    with multiprocessing.get_context('spawn').Pool(1, torch.set_num_threads, (args.threads,)) as pool:
        return pool.apply(function, (args,))


if __name__ == '__main__':
    main()
