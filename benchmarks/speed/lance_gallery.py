"""Lance galleries of synthetic items: writing, index, search, and the most memory that each takes.

Items go in as `sfsc-timm index` puts them, 32,768 a transaction. Each step is a process of its own, whose peak of
resident memory is noted (Python and torch are 0.4 GiB of it), and can be interrupted: run the command again, and it
goes on where it was. recall@10 is against the exact search of the same gallery, by 64 queries that are not in it; the
search was tuned, as always, on a hundred of the gallery's own items.

    python -m benchmarks.speed.lance_gallery --items 1000000 --folder /large/disk --output lance-1000000.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import save_json
from benchmarks.speed.clustered import ROWS, SIZE, clustered
from sfsc_timm.retrieval import GalleryInfo, LanceGallery, build_index

QUERIES, TOP = 64, 10
KINDS = ('ivf_pq', 'ivf_hnsw_sq')


def peak() -> float:
    """Most resident memory of this program so far, in MiB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith('VmHWM'))) / 1024


def size_of(folder: Path) -> float:
    """MiB in a folder."""
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20


def write(folder: Path, items: int, dtype: str, until: float) -> dict[str, Any]:
    """Appends what is missing of the items; stops, to be called again, when it is time."""
    gallery = LanceGallery.create(folder, GalleryInfo('synthetic', 1.0, SIZE, 'synthetic', dtype), root='/images')
    begin, before = time.perf_counter(), len(gallery)
    for block, embeddings in enumerate(clustered(items, 1, before // ROWS), before // ROWS):
        if time.time() > until:
            break
        paths = [f'/images/{block:05d}/{i:05d}.jpg' for i in range(len(embeddings))]
        gallery.append(paths, embeddings, existing='skip')
    done = len(gallery)
    if done == items:
        gallery.tidy(keep_days=0)
    seconds = time.perf_counter() - begin
    return {
        'done': done == items,
        'rows': done - before,
        'seconds': seconds,
        'mib': peak(),
        'disk_mib': size_of(folder),
    }


def exact(folder: Path) -> dict[str, Any]:
    """Compares queries with every item."""
    gallery, queries = LanceGallery(folder), next(clustered(QUERIES, 2))
    start, begin = peak(), time.perf_counter()
    found = gallery.search(queries, TOP, exact=True)
    seconds = time.perf_counter() - begin
    return {
        'ms_per_query_of_64': 1000 * seconds / QUERIES, 'mib_at_start': start, 'mib': peak(),
        'found': [[path for path, _ in row] for row in found],
    }  # fmt: skip


def build(folder: Path, kind: str) -> dict[str, Any]:
    """Builds an index and measures it as `sfsc-timm index` does."""
    begin, disk = time.perf_counter(), size_of(folder)
    ann = build_index(LanceGallery(folder), kind)  # type: ignore[arg-type]
    assert ann is not None
    seconds = time.perf_counter() - begin
    return {'seconds': seconds, 'mib': peak(), 'disk_mib': size_of(folder) - disk, 'ann': ann.to_dict()}


def search(folder: Path, wanted: list[list[str]]) -> dict[str, Any]:
    """Searches through the index, one query at a time."""
    gallery, queries = LanceGallery(folder), next(clustered(QUERIES, 2))
    cold, _ = _one_by_one(gallery, queries)
    warm, found = _one_by_one(gallery, queries)
    begin = time.perf_counter()
    gallery.search(queries, TOP)
    together = 1000 * (time.perf_counter() - begin) / QUERIES
    hits = sum(len(set(all_) & {path for path, _ in some}) for all_, some in zip(wanted, found, strict=True))
    return {
        'ms_per_query': warm[len(warm) // 2], 'ms_slowest_of_64': warm[-1], 'ms_first_time': cold[len(cold) // 2],
        'ms_per_query_of_64': together, 'recall@10': hits / (QUERIES * TOP), 'mib': peak(),
    }  # fmt: skip


def _one_by_one(gallery: LanceGallery, queries: torch.Tensor) -> tuple[list[float], list[list[tuple[str, float]]]]:
    """Milliseconds, ascending, and what was found."""
    times, found = [], []
    for query in queries:
        begin = time.perf_counter()
        found.append(gallery.search(query[None], TOP)[0])
        times.append(1000 * (time.perf_counter() - begin))
    return sorted(times), found


def measure(items: int, kinds: list[str], folder: Path, dtype: str = 'float32', seconds: float = 1e9) -> dict[str, Any]:
    """Runs the steps that are left, each in a process of its own, as far as the time allows.

    Returns:
        Results by step; 'complete' says whether all are there. They are kept in the folder, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / 'notes.json'
    results: dict[str, Any] = json.loads(notes.read_text()) if notes.exists() else {'items': items, 'dtype': dtype}
    until = time.time() + seconds
    steps = ['write', 'exact', *(f'{what} {kind}' for kind in kinds for what in ('build', 'search'))]
    for step in steps:
        if results.get(step, {}).get('done', step in results and step != 'write'):
            continue
        if time.time() > until:
            break
        command = [sys.executable, '-m', 'benchmarks.speed.lance_gallery', '--step', step, '--items', str(items)]
        run = subprocess.run(
            [*command, '--folder', str(folder), '--dtype', dtype, '--until', str(until)],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found = json.loads(run.stdout.splitlines()[-1])
        if step == 'write':
            for name in ('rows', 'seconds'):
                found[name] += results.get(step, {}).get(name, 0)
            found['mib'] = max(found['mib'], results.get(step, {}).get('mib', 0))
            found['rows_per_second'] = found['rows'] / found['seconds']
        results[step] = found
        print(step, {name: value for name, value in found.items() if name != 'found'}, flush=True)
        notes.write_text(json.dumps(results))
        if not found.get('done', True):
            break
    shown = {name: dict(value) if isinstance(value, dict) else value for name, value in results.items()}
    shown.get('exact', {}).pop('found', None)
    return {**shown, 'complete': all(step in results for step in steps) and results['write']['done']}


def _step(args: argparse.Namespace) -> dict[str, Any]:
    folder = args.folder / 'gallery'
    what, _, kind = args.step.partition(' ')
    if what == 'write':
        return write(folder, args.items, args.dtype, args.until)
    if what == 'exact':
        return exact(folder)
    if what == 'build':
        return build(folder, kind)
    return search(folder, json.loads((args.folder / 'notes.json').read_text())['exact']['found'])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=100_000, metavar='N', help='items (%(default)s)')
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS), help='indexes to build')
    parser.add_argument('--dtype', choices=('float32', 'float16'), default='float32', help='of the table (%(default)s)')
    parser.add_argument('--folder', type=Path, required=True, metavar='DIR', help='where to write, on a large disk')
    parser.add_argument('--seconds', type=float, default=1e9, help='begin no step, and no transaction, after these')
    parser.add_argument('--output', metavar='FILE', help='write the results as JSON; the folder is then deleted')
    parser.add_argument('--step', help=argparse.SUPPRESS)
    parser.add_argument('--until', type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(_step(args)))
        return
    result = measure(args.items, args.kinds, args.folder, args.dtype, args.seconds)
    if not result['complete']:
        print('not complete: run it again')
    elif args.output:
        save_json(args.output, {**result, 'threads': torch.get_num_threads()})
        shutil.rmtree(args.folder)


if __name__ == '__main__':
    main()
