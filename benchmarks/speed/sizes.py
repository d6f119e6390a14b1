"""What nested embedding sizes cost a training step.

    python -m benchmarks.speed.sizes --output benchmarks/results/sizes-cost.json
    python -m benchmarks.speed.sizes --quick  # few rounds, to see that everything runs

Forward and backward of all four widths with `embed_dims=(32, 64, 128, 256)` against `embed_dim=256`, which take turns
in one process; the figure is the ratio of their median times. Two cases: the ResNet-18-D of the paper's table on
`emoji` (its settings: P x K batches of 128 of each width's own at 32 px, 809 classes, a triplet loss on each size), and
`sfsc_resnet50` at 128 px (16 images, 1000 classes, the evidential loss alone).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

import sfsc_timm  # noqa: F401
from benchmarks.machine import describe_machine, save_json
from benchmarks.speed.turns import in_turns
from sfsc_timm.recipes import create_recipe

SIZES = (32, 64, 128, 256)
SMALL = {'channels': (32, 64, 128, 256), 'stem_width': 16, 'classifier_type': 'cosine'}
CASES: dict[str, dict[str, Any]] = {
    'sfsc_resnet18d, emoji': {
        'name': 'sfsc_resnet18d', 'kwargs': SMALL, 'classes': 809, 'images': (128, 3, 32, 32), 'triplet': 4.0,
        'own_batches': 0.6,
    },
    'sfsc_resnet50, 128 px': {
        'name': 'sfsc_resnet50', 'kwargs': {}, 'classes': 1000, 'images': (16, 3, 128, 128), 'triplet': 0.0,
        'own_batches': 0.0,
    },
}  # fmt: skip


def create_step(case: dict[str, Any], **sizes: Any) -> Callable[[], object]:
    """A training step of a case, with one size or several."""
    torch.manual_seed(0)
    model: Any = timm.create_model(case['name'], num_classes=case['classes'], **case['kwargs'], **sizes)
    recipe = create_recipe('sfsc', teacher=0.0, own_batches=case['own_batches'])
    task = recipe.create_task(
        model.train().to(memory_format=torch.channels_last), triplet_weight=case['triplet'], verbose=False
    )
    count = case['images'][0]
    parts = recipe.batches_per_step(len(model.widths))
    images = torch.randn(parts * count, *case['images'][1:]).contiguous(memory_format=torch.channels_last)
    target = torch.cat([torch.randperm(case['classes'])[: count // 4].repeat_interleave(4) for _ in range(parts)])

    def step() -> None:
        task.zero_grad()
        task(images, target)['loss'].backward()

    return step


def measure(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Median seconds of a step with each, and their ratio."""
    steps = {'one size': create_step(case, embed_dim=SIZES[-1]), 'nested': create_step(case, embed_dims=SIZES)}
    medians = {name: statistics.median(values) for name, values in in_turns(steps, rounds).items()}
    return {'seconds': medians, 'ratio': medians['nested'] / medians['one size'], 'rounds': rounds}


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=12)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--output', type=Path)
    args = parser.parse_args()
    print(describe_machine())
    found = {}
    for name, case in CASES.items():
        found[name] = measure(case, 1 if args.quick else args.rounds)
        print(f'{name}: {found[name]["seconds"]}, nested / one size = {found[name]["ratio"]:.3f}', flush=True)
    if args.output:
        save_json(args.output, {'embed_dims': SIZES, 'cases': found})


if __name__ == '__main__':
    main()
