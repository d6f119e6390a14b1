"""Where the time of `sfsc-timm index` goes: reading files, decoding, transform, model; and what goes on at once.

Photographs are taken in a fixed order from a folder. Decoding, transform and models are measured in the time of one
core, models also on all cores; indexing as a whole, by the clock, without and with processes that read. Two faster ways
to decode are compared with Pillow's pixels, which galleries are bound to: draft mode (the JPEG decoder scales) and
torchvision's decoder.

    python -m benchmarks.speed.indexing /data/grocery --output benchmarks/results/indexing.json
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import sfsc_timm  # noqa: F401  registers the models
from benchmarks.machine import save_json
from sfsc_timm.data import Preprocessing, Sample, batches, load_image
from sfsc_timm.evaluation import embed
from sfsc_timm.retrieval import state_since, times_of

MODELS, WIDTHS, BATCH = ('sfsc_resnet18d', 'sfsc_efficientnet_lite0'), (0.25, 1.0), 32
PARTS = ('one_core', 'decoders', 'models', 'indexing')
PREPROCESSING = Preprocessing((3, 224, 224))


def photographs(folder: Path, count: int) -> list[str]:
    """Some JPEG files, the same each time."""
    files = sorted(str(path) for path in folder.rglob('*.jpg'))
    return random.Random(0).sample(files, min(count, len(files)))


def rate(work: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Items per second of one core's time, after one to warm up."""
    work(items[0])
    begin = time.process_time()
    for item in items:
        work(item)
    return len(items) / (time.process_time() - begin)


def measure_reading(files: list[str]) -> dict[str, Any]:
    """Images a second on one core, of what comes before the model."""
    transform, threads = PREPROCESSING.transform(), torch.get_num_threads()
    torch.set_num_threads(1)
    images = [load_image(file) for file in files]
    pixels = sorted(image.width * image.height for image in images)
    result = {
        'median_megapixels': pixels[len(pixels) // 2] / 1e6,
        'median_kib': sorted(os.path.getsize(file) for file in files)[len(files) // 2] / 1024,
        'read_bytes': rate(lambda file: Path(file).read_bytes(), files),
        'decode': rate(load_image, files),
        'transform': rate(transform, images),
        'note_file_state': rate(lambda file: state_since(file, times_of([file])[file]), files),
    }
    torch.set_num_threads(threads)
    return result


def measure_decoders(files: list[str]) -> dict[str, Any]:
    """Other ways to decode: images a second, and in how many images a pixel differs from Pillow's."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    def draft(file: str) -> Image.Image:
        with Image.open(file) as image:
            image.draft('RGB', (256, 256))
            return image.convert('RGB')

    def vision(file: str) -> torch.Tensor:
        return decode_jpeg(read_file(file), ImageReadMode.RGB)

    def plain(file: str) -> Image.Image:
        with Image.open(file) as image:
            return image.convert('RGB')

    result: dict[str, Any] = {'pillow': {'images_per_second': rate(plain, files)}}
    transform = PREPROCESSING.transform()
    for name, way in (('pillow_draft', draft), ('torchvision', vision)):
        differ, furthest = 0, 0.0
        for file in files[:100]:
            found: Any = way(file)
            if name == 'pillow_draft':
                far = float((transform(found) - transform(plain(file))).abs().max() * 255 * 0.229)
            else:
                mine = torch.from_numpy(np.array(plain(file))).permute(2, 0, 1).int()
                far = float((found.int() - mine).abs().max()) if found.shape == mine.shape else 255.0
            differ, furthest = differ + (far > 0.01), max(furthest, far)
        result[name] = {
            'images_per_second': rate(way, files), 'images_that_differ': differ / min(len(files), 100),
            'greatest_difference_of_255': furthest,
        }  # fmt: skip
    return result


def measure_models(count: int) -> dict[str, Any]:
    """Images a second of the models alone."""
    images = list(torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0)).split(BATCH))
    result: dict[str, Any] = {}
    threads = torch.get_num_threads()
    for name in MODELS:
        model = timm.create_model(name, num_classes=2).eval()
        for width in WIDTHS:
            for used in sorted({1, threads}):
                torch.set_num_threads(used)
                embed(model, images[:1], [width])
                clock = time.process_time if used == 1 else time.perf_counter
                begin = clock()
                embed(model, images, [width])
                result[f'{name} {width:g}, threads {used}'] = count / (clock() - begin)
        torch.set_num_threads(threads)
    return result


def measure_indexing(files: list[str], workers: Sequence[int], repeats: int) -> dict[str, Any]:
    """Images a second of reading and embedding together, best of some; starting the processes counts."""
    samples = [Sample(Path(file), 0) for file in files]
    result: dict[str, Any] = {}
    for name in MODELS:
        model = timm.create_model(name, num_classes=2).eval()
        for width in WIDTHS:
            for count in workers:
                best = 0.0
                for _ in range(repeats):
                    loader = batches(samples, PREPROCESSING.transform(), batch_size=BATCH, workers=count)
                    begin = time.perf_counter()
                    embed(model, (batch.images for batch in loader), [width])
                    best = max(best, len(files) / (time.perf_counter() - begin))
                result[f'{name} {width:g}, workers {count}'] = best
                print(name, width, count, best, flush=True)
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='photographs, in subfolders too')
    parser.add_argument('--images', type=int, default=500, metavar='N', help='how many (%(default)s)')
    parser.add_argument('--models-on', type=int, default=128, metavar='N', help='images for models alone (%(default)s)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='processes that read (%(default)s)')
    parser.add_argument('--repeats', type=int, default=1, metavar='N', help='of indexing (%(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure (all)')
    parser.add_argument('--output', metavar='FILE', help='write the results as JSON')
    args = parser.parse_args()
    files = photographs(args.folder, args.images)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        'one_core': lambda: measure_reading(files),
        'decoders': lambda: measure_decoders(files),
        'models': lambda: measure_models(args.models_on),
        'indexing': lambda: measure_indexing(files, args.workers, args.repeats),
    }
    result: dict[str, Any] = {'images': len(files)}
    for part in args.parts:
        result[part] = work[part]()
        print(part, result[part], flush=True)
    if args.output:
        save_json(args.output, result)


if __name__ == '__main__':
    main()
