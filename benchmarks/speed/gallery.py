"""Lance galleries of synthetic items with cluster structure: writing, index, search, memory.

Items are normals around centres that are normals themselves, and queries are other items of the same clusters. Items go
in as `sfsc-timm index` puts them, some thousands a transaction; recall@10 is against the exact search of the same
gallery.

    python -m benchmarks.speed.gallery --items 100000 --output benchmarks/results/gallery.json
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import save_json
from sfsc_timm.retrieval import GalleryInfo, LanceGallery, build_index

SIZE, CLUSTERS, SPREAD = 256, 1000, 0.7
ROWS = 32768


def clustered(count: int, seed: int) -> Iterator[Tensor]:
    """Embeddings (n, 256) of unit length, some thousands at a time."""
    centres = torch.randn(CLUSTERS, SIZE, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    for begin in range(0, count, ROWS):
        rows = min(ROWS, count - begin)
        chosen = centres[torch.randint(CLUSTERS, (rows,), generator=random)]
        yield torch.nn.functional.normalize(chosen + SPREAD * torch.randn(rows, SIZE, generator=random), dim=1)


def peak() -> float:
    """Most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(items: int, kinds: list[str], folder: Path) -> dict[str, Any]:
    """Writes a gallery and searches it through each kind of index."""
    before, begin = peak(), time.perf_counter()
    gallery = LanceGallery.create(folder / 'gallery', GalleryInfo('synthetic', 1.0, SIZE, 'synthetic'), root='/images')
    for part, embeddings in enumerate(clustered(items, 1)):
        paths = [f'/images/{part:05d}/{i:05d}.jpg' for i in range(len(embeddings))]
        gallery.append(paths, embeddings, existing='skip')
    writing = time.perf_counter() - begin
    gallery.tidy(keep_days=0)
    result: dict[str, Any] = {
        'items': items, 'rows_per_second': items / writing, 'mib_at_start': before, 'mib_after_writing': peak(),
        'mib_on_disk': sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 2**20,
    }  # fmt: skip
    queries = next(clustered(64, 2))
    begin = time.perf_counter()
    exact = gallery.search(queries, 10, exact=True)
    result['exact'] = {'ms_per_query_of_64': 1000 * (time.perf_counter() - begin) / 64, 'mib': peak()}
    for kind in kinds:
        begin = time.perf_counter()
        ann = build_index(gallery, kind)  # type: ignore[arg-type]
        building, built = time.perf_counter() - begin, peak()
        gallery.search(queries[:1], 10)  # opens the index
        begin = time.perf_counter()
        found = [gallery.search(query[None], 10)[0] for query in queries]
        single = time.perf_counter() - begin
        hits = sum(len({p for p, _ in one} & {p for p, _ in two}) for one, two in zip(found, exact, strict=True))
        result[kind] = {
            'seconds_to_build_and_measure': building, 'ann': ann.to_dict() if ann else None,
            'ms_per_query': 1000 * single / 64, 'recall@10': hits / 640, 'mib_built': built, 'mib_searched': peak(),
        }  # fmt: skip
        print(kind, result[kind], flush=True)
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=int, default=100_000, metavar='N', help='items (%(default)s)')
    parser.add_argument('--kinds', nargs='+', default=['ivf_pq', 'ivf_hnsw_sq'], help='indexes to build')
    parser.add_argument('--folder', metavar='DIR', help='where to write, on a large disk (temporary)')
    parser.add_argument('--output', metavar='FILE', help='write the results as JSON')
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        result = measure(args.items, args.kinds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(result)
    if args.output:
        save_json(args.output, result)


if __name__ == '__main__':
    main()
