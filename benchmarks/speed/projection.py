"""Cost of gradient projection over nested slices, against PCGrad on full-size gradients.

    python -m benchmarks.speed.projection                 # ResNet-50, widths .25 .5 .75 1
    python -m benchmarks.speed.projection --chunks --output benchmarks/results/projection.json

Every alternative gets the same gradients of slice size and returns the aggregated gradient of full size. The
alternatives take turns in one process; times are medians, and ratios are the medians of the ratios within a turn.
Memory is the growth of the peak over what the gradients of the slices take, each alternative in a process of its own.
The last row is what the aggregation is a part of: forward and backward of four dense models.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor

from benchmarks.machine import describe_machine, save_json
from sfsc_timm.gradients import GradientProjection
from sfsc_timm.gradients import gramian as gramian_module
from sfsc_timm.slim import SharedCut, SliceLayout

WIDTHS = (0.25, 0.5, 0.75, 1.0)
Gradients = list[list[Tensor]]


def slice_layout(widths: tuple[float, ...]) -> SliceLayout:
    """The shared parameters of ResNet-50: convolutions and a classifier whose input alone is sliced."""
    parameters = []
    for name, parameter in timm.create_model('resnet50', device='meta').named_parameters():
        if parameter.ndim == 4:
            out, into = parameter.shape[:2]
            sizes = [(int(out * w), into if name == 'conv1.weight' else int(into * w)) for w in widths]
            parameters.append(SharedCut(tuple((*size, *parameter.shape[2:]) for size in sizes)))
        elif name == 'fc.weight':
            parameters.append(SharedCut(tuple((parameter.shape[0], int(parameter.shape[1] * w)) for w in widths)))
        elif name == 'fc.bias':
            parameters.append(SharedCut((tuple(parameter.shape),) * len(widths)))
    return SliceLayout(parameters)


def padded(gradients: Gradients) -> list[Tensor]:
    """Full-size flattened gradients, one per width: what the alternatives need."""
    vectors = []
    for width in gradients:
        parts = []
        for gradient, full in zip(width, gradients[-1], strict=True):
            whole = torch.zeros_like(full)
            whole[tuple(slice(0, size) for size in gradient.shape)] = gradient
            parts.append(whole.flatten())
        vectors.append(torch.cat(parts))
    return vectors


def naive_pcgrad(gradients: Gradients) -> Tensor:
    """Algorithm 1 of Yu et al. 2020 on full-size vectors."""
    vectors = padded(gradients)
    projected = []
    for i, vector in enumerate(vectors):
        g = vector.clone()
        for j in torch.randperm(len(vectors)).tolist():
            if j != i and (product := g @ vectors[j]) < 0:
                g -= product / (vectors[j] @ vectors[j]) * vectors[j]
        projected.append(g)
    return torch.stack(projected).sum(0)


def torchjd_pcgrad(gradients: Gradients) -> Tensor:
    """TorchJD's PCGrad on the matrix of full-size vectors."""
    from torchjd.aggregation import PCGrad

    return PCGrad()(torch.stack(padded(gradients)))


def dot_by_rectangle(layout: SliceLayout) -> Callable[[Gradients], list[float]]:
    """Gramian alone, from float32 products of one rectangle at a time."""

    def compute(gradients: Gradients) -> list[float]:
        products = []
        for r in layout.rectangles:
            parts = [width[r.parameter][r.index].reshape(-1) for width in gradients[r.shell :]]
            products += [torch.dot(a, b) for i, a in enumerate(parts) for b in parts[: i + 1]]
        return torch.stack(products).tolist()

    return compute


def gramian_by_chunks(layout: SliceLayout, exponent: int) -> Callable[[Gradients], Tensor]:
    """Gramian alone, the way of the library with chunks of 2 ** exponent elements."""
    plan = GradientProjection(layout)._gramian_plan
    plan._chunks[1 << exponent] = list(plan._cut(1 << exponent))

    def compute(gradients: Gradients) -> Tensor:
        chosen = gramian_module._CHUNK
        gramian_module._CHUNK = dict.fromkeys(('cpu', 'cuda'), 1 << exponent)
        try:
            return plan(gradients)
        finally:
            gramian_module._CHUNK = chosen

    return compute


def alternatives(layout: SliceLayout, chunks: bool) -> dict[str, Callable[[Gradients], object]]:
    """Everything that is compared, by name; the first is what the others are measured against."""
    table: dict[str, Callable[[Gradients], object]] = {}
    for scope in ('shell', 'global', 'layer'):
        table[f'projection, {scope}'] = GradientProjection(layout, scope=scope).project_
    table['projection, shell, out of place'] = GradientProjection(layout).project
    table['sum'] = GradientProjection(layout, weighting='sum').project_
    table['PCGrad on full-size vectors'] = naive_pcgrad
    table['TorchJD PCGrad on full-size vectors'] = torchjd_pcgrad
    if chunks:
        table['Gramian by float32 rectangles'] = dot_by_rectangle(layout)
        for exponent in (14, 16, 17, 18, 19, 20, 22):
            table[f'Gramian by chunks of 2^{exponent}'] = gramian_by_chunks(layout, exponent)
    return table


def random_gradients(layout: SliceLayout, device: str) -> Gradients:
    """Gradients of every width with conflicts between neighbours."""
    torch.manual_seed(0)
    return [
        [(-0.1) ** (k % 2) + torch.randn(shape, device=device) for shape in layout.shapes(k)]
        for k in range(layout.num_widths)
    ]


def copy(gradients: Gradients) -> Gradients:
    """A copy that may be overwritten."""
    return [[gradient.clone() for gradient in width] for width in gradients]


def synchronize(device: str) -> None:
    """Waits for the accelerator."""
    if device == 'cuda':
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """Peak memory since the last `reset_peak`."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status').read_text(encoding='ascii')
    return 1024 * int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1])


def reset_peak(device: str) -> None:
    """Makes the present memory the peak."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    else:
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')


def measure_memory(name: str, widths: tuple[float, ...], device: str, chunks: bool) -> float:
    """Growth of the peak in bytes; to be run in a fresh process."""
    layout = slice_layout(widths)
    function = alternatives(layout, chunks)[name]
    gradients = random_gradients(layout, device)
    # The second call counts: the first one also loads libraries.
    for _ in range(2):
        synchronize(device)
        reset_peak(device)
        before = peak_bytes(device)
        result = function(gradients)
        synchronize(device)
        growth = peak_bytes(device) - before
        del result
    return float(growth)


def dense_step(widths: tuple[float, ...], device: str) -> Callable[[Gradients], None]:
    """Forward and backward of dense ResNet-50 of these widths, batch 16 at 128 px."""
    models = [
        timm.create_model('resnet50', channels=[int(c * width) for c in (64, 128, 256, 512)]).to(device)
        for width in widths
    ]
    images, target = torch.randn(16, 3, 128, 128, device=device), torch.randint(1000, (16,), device=device)

    def step(_: Gradients) -> None:
        for model in models:
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(images), target).backward()

    return step


def measure_times(
    table: dict[str, Callable], layout: SliceLayout, device: str, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Milliseconds of every alternative in every round, the first of which does not count."""
    times: dict[str, list[float]] = {name: [] for name in table}
    gradients = random_gradients(layout, device)
    for turn in range(rounds + 1):
        for name, function in table.items():
            given = copy(gradients)
            synchronize(device)
            start = clock()
            function(given)
            synchronize(device)
            if turn > 0:
                times[name].append(1e3 * (clock() - start))
    return times


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--widths', type=float, nargs='+', default=WIDTHS)
    parser.add_argument('--chunks', action='store_true', help='also compare ways to compute the Gramian')
    parser.add_argument('--processor-time', action='store_true', help='for a busy machine; give it one thread')
    parser.add_argument('--output', help='where to save the table as JSON')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    widths = tuple(args.widths)
    layout = slice_layout(widths)
    table = alternatives(layout, args.chunks)
    first, last = next(iter(table)), 'dense models, forward + backward'
    # Every block of memory goes back to the system when it is freed, so that it is seen when it is taken again.
    os.environ['MALLOC_MMAP_THRESHOLD_'] = '65536'
    clock = time.process_time if args.processor_time else time.perf_counter
    times = measure_times({**table, last: dense_step(widths, args.device)}, layout, args.device, args.rounds, clock)
    full = sum(math.prod(parameter.shape(-1)) for parameter in layout.parameters)
    print(f'{len(layout.parameters)} shared parameters, {full / 1e6:.1f} M; slices {layout.numel() / full:.3f} x')
    print(f'widths {widths}, {args.device}, {args.rounds} rounds, {describe_machine()}\n')
    print(f'| | ms | x {first} | % of {last} | extra memory, x parameters |\n|-|-|-|-|-|')
    rows = {}
    for name, values in times.items():
        row = {
            'ms': statistics.median(values),
            'ratio': statistics.median(a / b for a, b in zip(values, times[first], strict=True)),
            'percent': statistics.median(100 * a / b for a, b in zip(values, times[last], strict=True)),
        }
        if name != last:
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                growth = pool.apply(measure_memory, (name, widths, args.device, args.chunks))
            row['memory'] = growth / (4 * full)
        rows[name] = row
        print(f'| {name} | ' + ' | '.join(f'{value:.2f}' for value in row.values()) + ' |', flush=True)
    if args.output:
        save_json(args.output, {'clock': clock.__name__, 'rounds': args.rounds, 'widths': widths, 'rows': rows})


if __name__ == '__main__':
    main()
