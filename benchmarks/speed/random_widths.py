"""What a training step costs that draws a width between the trained ones, too.

    python -m benchmarks.speed.random_widths --output benchmarks/results/random-widths-cost.json
    python -m benchmarks.speed.random_widths --quick  # few rounds, to see that everything runs

Forward and backward of all four widths with `random_widths=1` against none, which take turns in one process and draw
another width each time; the figure is the ratio of their mean times on the processor, whatever else the machine does.
Two cases: the ResNet-18-D of the paper's table on `glyphs` (batches of 128 of 32 px, a finished teacher, made images
for the smaller widths, as the recipe `sfsc` has it), and the same network by the recipe `sum`, without either.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

import sfsc_timm  # noqa: F401
from benchmarks.machine import describe_machine, save_json
from benchmarks.speed.turns import in_turns
from sfsc_timm.recipes import create_recipe

MODEL = {
    'channels': (32, 64, 128, 256), 'stem_width': 16, 'embed_dim': 128, 'classifier_type': 'cosine', 'in_chans': 1,
    'num_classes': 140,
}  # fmt: skip
RECIPES = ('sfsc', 'sum')
BATCH = 128


def create_step(recipe: str, random_widths: int) -> Callable[[], object]:
    """A training step of a recipe."""
    torch.manual_seed(0)
    model, teacher = (timm.create_model('sfsc_resnet18d', **MODEL, **own) for own in ({}, {'widths': (1.0,)}))
    model.train().to(memory_format=torch.channels_last)
    made = create_recipe(recipe, random_widths=random_widths)
    reference = teacher.to(memory_format=torch.channels_last) if made.begins_alone else None
    task = made.create_task(model, triplet_weight=4.0, reference=reference, verbose=False)
    images = torch.randn(BATCH, 1, 32, 32).contiguous(memory_format=torch.channels_last)
    target = torch.randperm(MODEL['num_classes'])[: BATCH // 4].repeat_interleave(4)

    def step() -> None:
        model.zero_grad()
        task(images, target)['loss'].backward()

    return step


def measure(recipe: str, rounds: int) -> dict[str, Any]:
    """Mean processor seconds of a step with each, and their ratio; a median would be that of one drawn width."""
    steps = {count: create_step(recipe, count) for count in (0, 1)}
    seconds = in_turns(steps, rounds, time.process_time)
    means = {count: statistics.mean(values) for count, values in seconds.items()}
    return {'seconds': means, 'ratio': means[1] / means[0], 'rounds': rounds}


def main() -> None:
    """Measures both recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--output', type=Path)
    args = parser.parse_args()
    print(describe_machine())
    found = {}
    for recipe in RECIPES:
        found[recipe] = measure(recipe, 1 if args.quick else args.rounds)
        print(f'{recipe}: {found[recipe]["seconds"]}, ratio {found[recipe]["ratio"]:.3f}', flush=True)
    if args.output:
        save_json(args.output, {'batch': BATCH, 'recipes': found})


if __name__ == '__main__':
    main()
