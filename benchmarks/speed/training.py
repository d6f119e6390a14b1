"""Cost of one SFSC training step against the dense models that it trains jointly.

    python -m benchmarks.speed.training                        # ResNet-50, batch 16, 128 px, widths 2, 4 and 8
    python -m benchmarks.speed.training --num-widths 4 --output benchmarks/results/training.json
    python -m benchmarks.speed.training --quick                # a small model, to see that everything runs

A step is forward and backward of all widths until `.grad` is complete; the optimizer is left out. What it is measured
against is the sum of one dense model per width, built from timm and torch alone, with a cross-entropy. The alternatives
take turns in one process, in another order every round, and the figure is the ratio of their median times. The peak of
memory is that of a process which does nothing else: all that it holds beyond the imported libraries.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfsc_timm  # noqa: F401
from benchmarks.machine import describe_machine, save_json
from sfsc_timm.tasks import SFSCTask, slice_layout

CLASSES = 1000
EMBED_DIM = 256

Step = Callable[[], object]


def dense_model(channels: tuple[int, ...], layers: tuple[int, ...], width: float) -> nn.Module:
    """Timm's bottleneck ResNet with `width` times the channels, stem included, a linear neck and a classifier."""
    sizes = [int(c * width) for c in channels]
    model = timm.create_model('resnet50', channels=sizes, layers=layers, num_classes=0)
    stem = int(64 * width)
    model.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(stem)
    first = model.layer1[0]
    first.conv1 = nn.Conv2d(stem, first.conv1.out_channels, 1, bias=False)
    first.downsample = nn.Sequential(nn.Conv2d(stem, 4 * sizes[0], 1, bias=False), nn.BatchNorm2d(4 * sizes[0]))
    neck = nn.Linear(model.num_features, EMBED_DIM, bias=False), nn.BatchNorm1d(EMBED_DIM)
    return nn.Sequential(model, *neck, nn.Linear(EMBED_DIM, CLASSES))


class Setting:
    """Models and a batch of one size.

    Args:
        num_widths: The widths are 1 / n, 2 / n, ..., 1.
        args: Command line.
    """

    def __init__(self, num_widths: int, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.widths = tuple((k + 1) / num_widths for k in range(num_widths))
        self.device = args.device
        self.channels, self.layers = (
            ((32, 64, 64, 64), (1, 1, 1, 1)) if args.quick else ((64, 128, 256, 512), (3, 4, 6, 3))
        )
        self.images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=self.device)
        self.target = torch.randint(CLASSES, (args.batch_size,), device=self.device)

    def slimmable(self) -> Any:
        """Our model of all widths."""
        model = timm.create_model(
            'sfsc_resnet50',
            channels=self.channels,
            layers=self.layers,
            widths=self.widths,
            num_classes=CLASSES,
            embed_dim=EMBED_DIM,
        )
        return model.to(self.device).train()


def dense_models(setting: Setting) -> Step:
    """One dense model per width, cross-entropy: what the others are measured against."""
    models = [dense_model(setting.channels, setting.layers, w).to(setting.device).train() for w in setting.widths]
    layout = slice_layout(setting.slimmable())
    for index, model in enumerate(models):
        wanted, got = sum(map(math.prod, layout.shapes(index))), sum(p.numel() for p in model.parameters())
        if got != wanted:
            raise RuntimeError(f'not the same shapes: width {index} has {wanted} parameters, the dense model {got}')

    def step() -> None:
        for model in models:
            model.zero_grad()
            F.cross_entropy(model(setting.images), setting.target).backward()

    return step


def task(setting: Setting, **options: Any) -> Step:
    """A step of our task."""
    sfsc = SFSCTask(setting.slimmable(), device=torch.device(setting.device), verbose=False, **options)

    def step() -> None:
        sfsc.zero_grad()
        sfsc(setting.images, setting.target)['loss'].backward()

    return step


def losses(model: Any, setting: Setting) -> list[Tensor]:
    """Cross-entropies of all widths, with their graphs."""
    found = []
    for width in setting.widths:
        with model.at_width(width):
            found.append(F.cross_entropy(model(setting.images), setting.target))
    return found


def plain_sum(setting: Setting) -> Step:
    """What slimmable networks do: every width's loss goes backward through the slices, gradients add up in `.grad`."""
    model = setting.slimmable()

    def step() -> None:
        model.zero_grad()
        for width in setting.widths:
            with model.at_width(width):
                F.cross_entropy(model(setting.images), setting.target).backward()

    return step


def naive_pcgrad(setting: Setting) -> Step:
    """Algorithm 1 of Yu et al. 2020 on full-size flattened gradients."""
    model = setting.slimmable()
    parameters = list(model.parameters())

    def step() -> None:
        vectors = []
        for width in setting.widths:
            with model.at_width(width):
                loss = F.cross_entropy(model(setting.images), setting.target)
                found = torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)
            vectors.append(torch.cat([gradient.flatten() for gradient in found]))
        total = torch.zeros_like(vectors[0])
        for i, vector in enumerate(vectors):
            projected = vector.clone()
            for j in torch.randperm(len(vectors)).tolist():
                if j != i and (product := projected @ vectors[j]) < 0:
                    projected -= product / (vectors[j] @ vectors[j]) * vectors[j]
            total += projected
        parts = total.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    return step


def torchjd_pcgrad(setting: Setting) -> Step:
    """TorchJD: the Jacobian of all losses, then its PCGrad."""
    from torchjd.aggregation import PCGrad
    from torchjd.autojac import backward, jac_to_grad

    model = setting.slimmable()
    aggregator = PCGrad()

    def step() -> None:
        model.zero_grad()
        parameters = list(model.parameters())
        backward(losses(model, setting), inputs=parameters, parallel_chunk_size=1)
        jac_to_grad(parameters, aggregator)

    return step


ALTERNATIVES: dict[str, Callable[[Setting], Step]] = {
    'dense models, cross-entropy': dense_models,
    'SFSC (evidential, projection)': task,
    'SFSCTask, cross-entropy and sum': lambda s: task(s, criterion='cross_entropy', aggregation='sum'),
    'plain sum on the slimmable model': plain_sum,
    'PCGrad on full-size gradients': naive_pcgrad,
    "TorchJD's autojac with PCGrad": torchjd_pcgrad,
}
BASE = next(iter(ALTERNATIVES))


def synchronize(device: str) -> None:
    """Waits for the accelerator."""
    if device == 'cuda':
        torch.cuda.synchronize()


def measure_times(setting: Setting, names: list[str], rounds: int) -> dict[str, float]:
    """Median milliseconds of each alternative; the first round does not count."""
    steps = {name: ALTERNATIVES[name](setting) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            synchronize(setting.device)
            start = time.perf_counter()
            steps[name]()
            synchronize(setting.device)
            if turn > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def resident(key: str) -> int:
    """Bytes of this process: 'VmRSS' now, 'VmHWM' at most so far."""
    status = Path('/proc/self/status').read_text(encoding='ascii')
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


def measure_memory(name: str, num_widths: int, args: argparse.Namespace) -> float:
    """Peak in bytes of two steps with all that they need, in this fresh process."""
    torch.set_num_threads(args.threads)
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = resident('VmRSS')
    step = ALTERNATIVES[name](Setting(num_widths, args))
    for _ in range(2):
        step()
    return float(torch.cuda.max_memory_allocated() if args.device == 'cuda' else resident('VmHWM') - before)


def main() -> None:
    """Prints one table per number of widths and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num-widths', type=int, nargs='+', default=[2, 4, 8], help='tables to make (default: 2 4 8)')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=128, help='pixels (default: 128)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--rounds', type=int, default=9, help='timed rounds (default: 9)')
    parser.add_argument('--only', nargs='+', choices=list(ALTERNATIVES), help='which to measure besides the dense ones')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak of memory')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--quick', action='store_true', help='a small model; its figures mean nothing')
    parser.add_argument('--output', default='', help='JSON file for the results')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = [name for name in ALTERNATIVES if name == BASE or not args.only or name in args.only]
    print(f'batch {args.batch_size}, {args.img_size} px, {args.rounds} rounds, {describe_machine()}')
    tables = {}
    for count in args.num_widths:
        rows: dict[str, dict[str, float]] = {}
        times = measure_times(Setting(count, args), names, args.rounds)
        print(f'\n{count} widths\n\n| | ms | x dense | peak MB |\n|-|-|-|-|')
        for name in names:
            rows[name] = {'ms': times[name], 'ratio': times[name] / times[BASE]}
            if not args.no_memory:
                with multiprocessing.get_context('spawn').Pool(1) as pool:
                    rows[name]['peak_mb'] = pool.apply(measure_memory, (name, count, args)) / 1e6
            peak = f'{rows[name]["peak_mb"]:.0f}' if 'peak_mb' in rows[name] else ''
            print(f'| {name} | {rows[name]["ms"]:.0f} | {rows[name]["ratio"]:.2f} | {peak} |', flush=True)
        tables[str(count)] = rows
    if args.output:
        save_json(args.output, {'arguments': vars(args), 'tables': tables})


if __name__ == '__main__':
    main()
