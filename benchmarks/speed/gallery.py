"""Galleries of synthetic items with cluster structure, every way to keep and to search them, in one process.

For each: seconds to build, MiB on disk, the most memory of opening and searching (beyond what the process takes
anyway), queries a second one at a time and 64 at a time (the best of some rounds, in which all ways take turns, so that
other work on the machine hits all of them), and recall@10 against the exact float32 search. `product` is no gallery but
a yardstick: normalised float32 in memory, one matrix product and topk. Searching begins with the items in memory.

    python -m benchmarks.speed.gallery --items 100000 --probes 8 32 128 --output benchmarks/results/gallery/100000.json
    python -m benchmarks.speed.gallery --plot benchmarks/results/gallery/*.json --output gallery.png
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.machine import save_json
from benchmarks.speed.clustered import ROWS, SIZE, clustered
from sfsc_timm.retrieval import FaissIndex, Gallery, GalleryInfo, LanceGallery, Shortlist, build_index

TOP, BATCH = 10, 64
DTYPES = ('float32', 'float16', 'int8', 'binary')
WAYS = (
    'product',
    *DTYPES,
    'int8, shortlist of 1000 by bits',
    'binary, shortlist of 1000',
    'faiss',
    'usearch graph',
    'usearch scan',
    'lance',
)

Search = Callable[[Tensor], Tensor]


class Way(NamedTuple):
    """A gallery that is ready: how it searches, and what it took."""

    search: Search
    noted: dict[str, Any]


def peak(reset: bool = False) -> float:
    """Most resident memory of this process in MiB, since it was last set back."""
    if reset:
        Path('/proc/self/clear_refs').write_text('5')
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith('VmHWM'))) / 1024


def size_of(folder: Path) -> float:
    """MiB in a folder."""
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20


def paths_of(block: int, count: int) -> list[str]:
    """Names of a block's items."""
    return [f'/images/{block * ROWS + i:09d}.jpg' for i in range(count)]


def ours(items: int, folder: Path, dtype: str, shortlist: Shortlist | None = None) -> Way:
    """A safetensors gallery; one that is there is taken as it is."""
    noted: dict[str, Any] = {}
    if not folder.exists():
        gallery, begin = Gallery.create(folder, GalleryInfo('synthetic', 1.0, SIZE, 'synthetic', dtype)), time.time()
        for block, embeddings in enumerate(clustered(items, 1)):
            gallery.append(paths_of(block, len(embeddings)), embeddings, existing='skip')
        noted['build_seconds'] = time.time() - begin
        del gallery
    before = peak(reset=True)
    scan = Gallery(folder).scan(shortlist)
    noted['disk_mib'] = size_of(folder)
    scan(next(clustered(1, 2)), TOP, 'cosine')
    noted['memory_mib'] = peak() - before
    return Way(lambda query: scan(query, TOP, 'cosine')[1], noted)


def product(items: int) -> Way:
    """What no exact float32 search can be much faster than."""
    before = peak(reset=True)
    gallery = torch.cat(list(clustered(items, 1)))
    noted = {'memory_mib': peak() - before}
    return Way(lambda query: (query @ gallery.T).topk(TOP).indices, noted)


def faiss(items: int, probes: int, index: FaissIndex | None) -> tuple[Way, FaissIndex]:
    """Lists around centroids, as `search --faiss` makes them."""
    noted: dict[str, Any] = {}
    if index is None:
        before, begin = peak(reset=True), time.time()
        index = FaissIndex(torch.cat(list(clustered(items, 1))))
        noted = {'build_seconds': time.time() - begin, 'memory_mib': peak() - before}
    return Way(lambda query: index.search(query, TOP, probes=probes)[1], noted), index


def usearch_graph(items: int) -> Way:
    """The yardstick: its graph of int8 items."""
    from usearch.index import Index

    before, begin, threads = peak(reset=True), time.time(), torch.get_num_threads()
    index = Index(ndim=SIZE, metric='cos', dtype='i8')
    for block, embeddings in enumerate(clustered(items, 1)):
        keys = torch.arange(block * ROWS, block * ROWS + len(embeddings)).numpy()
        index.add(keys, embeddings.numpy(), threads=threads)
    noted = {'build_seconds': time.time() - begin, 'memory_mib': peak() - before}
    return Way(lambda query: _keys(index.search(query.numpy(), TOP, threads=threads), query), noted)


def usearch_scan(items: int) -> Way:
    """The yardstick: its comparison of int8 queries with every int8 item."""
    from usearch.index import MetricKind, search

    before, threads = peak(reset=True), torch.get_num_threads()
    codes = torch.cat([_codes(part) for part in clustered(items, 1)]).numpy()
    noted = {'memory_mib': peak() - before}

    def find(query: Tensor) -> Tensor:
        found = search(codes, _codes(query).numpy(), TOP, MetricKind.Cos, exact=True, threads=threads)
        return _keys(found, query)

    return Way(find, noted)


def _codes(embeddings: Tensor) -> Tensor:
    """int8 of unit vectors, of which no number is near 1, by one scale."""
    return (embeddings * 400).round().clamp(-127, 127).to(torch.int8)


def _keys(found: Any, query: Tensor) -> Tensor:
    return torch.from_numpy(found.keys.astype('int64').reshape(len(query), -1))


def lance(items: int, folder: Path) -> Way:
    """A LanceDB table with the index that its size chooses; `lance_gallery` looks at it more closely."""
    before, begin = peak(reset=True), time.time()
    gallery = LanceGallery.create(folder, GalleryInfo('synthetic', 1.0, SIZE, 'synthetic'), root='/images')
    for block, embeddings in enumerate(clustered(items, 1)):
        gallery.append(paths_of(block, len(embeddings)), embeddings, existing='skip')
    gallery.tidy(keep_days=0)
    ann = build_index(gallery)
    noted: dict[str, Any] = {'build_seconds': time.time() - begin, 'disk_mib': size_of(folder)}
    noted |= {'memory_mib': peak() - before, 'index': ann.to_dict() if ann is not None else None}

    def search(query: Tensor) -> Tensor:
        return torch.tensor([[int(Path(path).stem) for path, _ in row] for row in gallery.search(query, TOP)])

    return Way(search, noted)


def prepare(items: int, ways: list[str], probes: list[int], folder: Path) -> dict[str, Way]:
    """Builds what was asked for."""
    ready: dict[str, Way] = {}
    for way in ways:
        print('building', way, flush=True)
        if way == 'product':
            ready[way] = product(items)
        elif way == 'faiss':
            index = None
            for number in probes:
                ready[f'faiss, {number} probes'], index = faiss(items, number, index)
        elif way.startswith('usearch'):
            if find_spec('usearch') is None:
                print(f'{way} is left out: usearch is not installed (pip install usearch)')
                continue
            ready[way] = usearch_graph(items) if way == 'usearch graph' else usearch_scan(items)
        elif way == 'lance':
            ready[way] = lance(items, folder / 'lance')
        else:
            dtype, _, more = way.partition(', ')
            ready[way] = ours(items, folder / dtype, dtype, Shortlist(1000) if more else None)
    return ready


def measure(items: int, ready: dict[str, Way], rounds: int) -> dict[str, Any]:
    """Searches by all ways in turn."""
    queries = next(clustered(BATCH, 2))
    exact = ready['float32'].search(queries)
    results: dict[str, Any] = {name: dict(way.noted) for name, way in ready.items()}
    best: dict[tuple[str, int], float] = {}
    for number in range(rounds):
        for name, way in ready.items():
            for batch in (1, BATCH):
                some = queries[number % BATCH][None] if batch == 1 else queries
                begin = time.perf_counter()
                found = way.search(some)
                seconds = time.perf_counter() - begin
                best[name, batch] = min(seconds, best.get((name, batch), seconds))
            hits = (found[:, :, None] == exact[:, None]).any(2).sum()
            results[name]['recall@10'] = float(hits / exact.numel())
    for (name, batch), seconds in best.items():
        results[name][f'queries_per_second_of_{batch}'] = batch / seconds
    for name, values in results.items():
        print(
            f'{name:36}', {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
        )
    return {'items': items, 'numbers': SIZE, 'ways': results}


def plot(files: list[Path], output: Path) -> None:
    """How queries a second fall with the number of items."""
    import matplotlib as mpl

    mpl.use('Agg')
    import matplotlib.pyplot as plt

    runs = sorted((json.loads(file.read_text()) for file in files), key=lambda run: run['items'])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharex=True, layout='constrained')
    for axis, batch in zip(axes, (1, BATCH), strict=True):
        key = f'queries_per_second_of_{batch}'
        for name in dict.fromkeys(name for run in runs for name in run['ways']):
            points = [(run['items'], run['ways'][name][key]) for run in runs if name in run['ways']]
            axis.loglog(*zip(*points, strict=True), marker='o', label=name)
        axis.set(xlabel='items', ylabel='queries a second', title=f'{batch} at a time')
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    figure.savefig(output, dpi=110)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=100_000, metavar='N', help='items (%(default)s)')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS), help='what to measure')
    parser.add_argument('--probes', type=int, nargs='+', default=[8, 32, 128], help='lists that FAISS visits')
    parser.add_argument('--rounds', type=int, default=5, metavar='N', help='of which the best counts (%(default)s)')
    parser.add_argument('--folder', metavar='DIR', help='where to write, on a large disk (temporary)')
    parser.add_argument('--plot', type=Path, nargs='+', metavar='FILE', help='draw results, and measure nothing')
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the results as JSON, or the plot')
    args = parser.parse_args()
    if args.plot:
        plot(args.plot, args.output)
        return
    ways = ['float32', *(way for way in args.ways if way != 'float32')]  # which the others are compared with
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        result = measure(args.items, prepare(args.items, ways, args.probes, folder), args.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.output:
        save_json(args.output, result)


if __name__ == '__main__':
    main()
