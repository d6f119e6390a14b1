"""Forward time of the slimmable ResNet-50 at each width against a dense model of the same shapes.

The dense model is built from timm and torch alone. They take turns in one process, so that what disturbs one disturbs
the other, and the figure is the ratio of their median times over several instances of each. Also measured: the first
forward after a switch of width, which copies that width's weights, in units of a dense batch-1 forward.

    python -m benchmarks.speed.inference
    python -m benchmarks.speed.inference --instances 15 --output benchmarks/results/inference.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from torch import nn

import sfsc_timm
from benchmarks.machine import describe_machine, save_json

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def dense_resnet50(width: float) -> nn.Module:
    """Timm's ResNet-50 with `width` times the channels, stem included, and a 256-d linear layer on top."""
    model = timm.create_model('resnet50', channels=[int(c * width) for c in (64, 128, 256, 512)], num_classes=256)
    stem = int(64 * width)
    model.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(stem)
    model.layer1[0].conv1 = nn.Conv2d(stem, stem, 1, bias=False)
    model.layer1[0].downsample = nn.Sequential(nn.Conv2d(stem, 4 * stem, 1, bias=False), nn.BatchNorm2d(4 * stem))
    return model.eval()


@torch.inference_mode()
def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.inference_mode()
def take_turns(functions: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of every call of each function; the order changes every round."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats):
        for place in range(len(functions)):
            which = (place + turn) % len(functions)
            times[which].append(seconds(functions[which]))
    return times


def compare(build: Callable[[], Sequence[Callable[[], object]]], args: argparse.Namespace) -> dict[str, float]:
    """Times what `build` makes, slimmable, dense and a second dense one, over several instances of each.

    Where the allocator puts a model's weights changes its speed by several percent for as long as it lives, so one
    instance of each says little. The second dense model shows what is left of that.
    """
    times: list[list[float]] = [[], [], []]
    for _ in range(args.instances):
        calls = build()
        take_turns(calls, 3)
        for seconds_of_model, new in zip(times, take_turns(calls, args.repeats), strict=True):
            seconds_of_model.extend(new)
    ours, theirs, control = map(statistics.median, times)
    return {
        'slimmable_ms': 1e3 * ours,
        'dense_ms': 1e3 * theirs,
        'ratio': ours / theirs,
        'dense_to_dense': control / theirs,
    }


def measure(width: float, batch: int, args: argparse.Namespace) -> dict[str, float]:
    """Times forwards at one width and batch size."""
    x = torch.randn(batch, 3, args.img_size, args.img_size)

    def build() -> list[Callable[[], object]]:
        slim = timm.create_model('sfsc_resnet50', num_classes=0).eval()
        models = [slim, dense_resnet50(width), dense_resnet50(width)]
        slim.set_width(width)
        wanted = sum(p.numel() for p in models[1].parameters())
        got = sum(p.numel() for p in slim.extract(width).parameters())
        if got != wanted:
            raise RuntimeError(f'not the same shapes: the dense model has {wanted} parameters, the sub-model {got}')
        return [partial(model, x) for model in models]

    return {'width': width, 'batch': batch, **compare(build, args)}


def measure_way(way: str, width: float, args: argparse.Namespace) -> dict[str, Any]:
    """Times one of the other ways to run a model, batch 1; forward_head gets a feature map."""
    x = torch.randn(1, 3, args.img_size, args.img_size)

    def build() -> list[Callable[[], object]]:
        dense = [dense_resnet50(width) for _ in range(2)]
        if way == 'features_only':
            slim: Any = timm.create_model('sfsc_resnet50', features_only=True).eval()
            others: list[Any] = [FeatureListNet(model).eval() for model in dense]
        else:
            slim, others = timm.create_model('sfsc_resnet50', num_classes=0).eval(), dense
        sfsc_timm.set_width(slim, width)
        given = dense[0].forward_features(x) if way == 'forward_head' else x
        return [partial(getattr(model, way, model), given) for model in (slim, *others)]

    return {'way': way, 'width': width, **compare(build, args)}


def measure_switch(width: float, repeats: int, size: int) -> dict[str, float]:
    """Extra time of the first forward after a switch, in dense batch-1 forwards of that width."""
    slim = timm.create_model('sfsc_resnet50', num_classes=0).eval()
    dense = dense_resnet50(width)
    x = torch.randn(1, 3, size, size)
    other = 0.5 if width != 0.5 else 0.75
    extra, later, base = [], [], []
    for _ in range(repeats):
        slim.set_width(other)
        slim.set_width(width)
        first = seconds(lambda: slim(x))
        second = seconds(lambda: slim(x))
        base.append(seconds(lambda: dense(x)))
        extra.append(first - second)
        later.append(second)
    forward = statistics.median(base)
    return {
        'width': width,
        'extra_ms': 1e3 * statistics.median(extra),
        'dense_ms': 1e3 * forward,
        'extra_forwards': statistics.median(extra) / forward,
        'second_ratio': statistics.median(later) / forward,
    }


def main() -> None:
    """Prints the tables and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=15, help='timed forwards of each instance (default: 15)')
    parser.add_argument('--instances', type=int, default=7, help='instances of each model (default: 7)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--img-size', type=int, default=224, help='pixels (default: 224)')
    parser.add_argument('--output', default='', help='JSON file for the results')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f'sfsc_timm {sfsc_timm.__version__}, {describe_machine()}')
    rows, switches = [], []
    print(f'{"width":>6} {"batch":>5} {"slimmable ms":>13} {"dense ms":>9} {"ratio":>6} {"dense to dense":>14}')
    for batch in (1, 8):
        for width in WIDTHS:
            rows.append(row := measure(width, batch, args))
            print(
                f'{width:>6} {batch:>5} {row["slimmable_ms"]:>13.2f} {row["dense_ms"]:>9.2f} {row["ratio"]:>6.3f} '
                f'{row["dense_to_dense"]:>14.3f}'
            )
    print('Other ways to run it, batch 1')
    ways = []
    for way in ('forward_features', 'features_only', 'embed', 'forward_head'):
        for width in WIDTHS:
            ways.append(row := measure_way(way, width, args))
            print(
                f'{way:>16} {width:>6} {row["slimmable_ms"]:>8.2f} {row["dense_ms"]:>9.2f} {row["ratio"]:>6.3f} '
                f'{row["dense_to_dense"]:>6.3f}'
            )
    print('First forward after a switch (batch 1): extra time, in dense forwards, and the second forward')
    for width in WIDTHS:
        switches.append(row := measure_switch(width, max(args.repeats, 15), args.img_size))
        print(
            f'{width:>6} {row["extra_ms"]:>9.2f} ms = {row["extra_forwards"]:.2f} forwards, '
            f'then ratio {row["second_ratio"]:.3f}'
        )
    if args.output:
        save_json(args.output, {'forward': rows, 'ways': ways, 'switch': switches})


if __name__ == '__main__':
    main()
