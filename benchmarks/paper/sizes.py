"""What nested embedding sizes cost in accuracy: a model of four sizes against one trained for the largest alone.

    python -m benchmarks.paper.sizes --data glyphs
    python -m benchmarks.paper.sizes --data emoji --data-dir emoji --seeds 0 1 2
    python -m benchmarks.paper.sizes --data glyphs --report  # only draws the table of what is there

Both are trained by SFSC without a teacher, with the settings in configs/ and those that tune.py had chosen for it on
`emoji`, with 256 numbers in place of 128; nothing is tuned for the sizes. The goal: 64 numbers lose at most 1 mAP of
256, 32 at most 3, and 256 at most 0.5 of those trained alone. A finished run leaves one JSON under
benchmarks/results/sizes/DATA; that of the model trained alone also holds what its embeddings are worth when they are
cut without having been trained for it. Runs that were cut are gone on with. Settings after `--` go to every run
(`-- --epochs 2 --threads 1`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine, save_json
from benchmarks.paper.runs import (
    CONFIGS,
    create_parser,
    flags_of,
    parse_arguments,
    read_run,
    system_flags,
    train_or_resume,
)
from sfsc_timm.evaluation import CompatibilityMatrix, by_size, bytes_per_item
from sfsc_timm.training import read_config

SIZES = (32, 64, 128, 256)
KINDS: dict[str, dict[str, Any]] = {'nested': {'embed_dims': list(SIZES)}, 'alone': {'embed_dim': SIZES[-1]}}
CHOSEN: dict[str, Any] = {
    'warmup_epochs': 5,
    'triplet': 4.0,
    'lr': 0.3,
    'weight_decay': 0.002,
    'recipe_kwargs': {'teacher': 0.0, 'own_batches': 0.6},
}
GOALS = {64: 1.0, 32: 3.0}  # at most so much less mAP than the largest size
GOAL_ALONE = 0.5  # at most so much less mAP of the largest size than of a model that has no other

Runs = dict[str, dict[int, dict[str, Any]]]


def settings_of(kind: str, data: str) -> dict[str, Any]:
    """What is trained: the data set's settings, what had been chosen for SFSC, and the sizes."""
    kwargs = {k: v for k, v in read_config(CONFIGS / f'{data}.yaml')['model_kwargs'].items() if k != 'embed_dim'}
    return {**CHOSEN, 'model_kwargs': {**kwargs, **KINDS[kind]}}


def train(kind: str, seed: int, args: argparse.Namespace) -> None:
    """Trains what is missing, and writes its JSON."""
    result = args.output / f'{kind}-seed{seed}.json'
    if result.is_file():
        return
    folder = args.work_dir / f'{kind}-seed{seed}'
    flags = [*system_flags('sfsc', args.data, args.data_dir), '--seed', str(seed)]
    train_or_resume(folder, [*flags, *flags_of(settings_of(kind, args.data)), *args.settings])
    found = {'kind': kind, 'seed': seed, **read_run(folder)}
    if kind == 'alone':
        found['cut'] = evaluate_cut(folder, args)
    save_json(result, found)


def evaluate_cut(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Matrices of a run of one size at all sizes, for which it was not trained."""
    config = read_config(folder / 'args.yaml')
    where = [] if args.data_dir is None else ['--data-dir', str(args.data_dir)]
    options = flags_of({'data_kwargs': config['data_kwargs']}) if config.get('data_kwargs') else []
    sizes = f'embed_dims={list(SIZES)}'
    command = [
        'eval',
        '--checkpoint',
        str(folder / 'last.pth.tar'),
        '--model-kwargs',
        sizes,
        '--data',
        args.data,
        *where,
    ]
    command += [*options, '--dims', '--output', str(folder / 'cut'), '--device', 'cpu']
    file = folder / 'cut' / 'matrix.json'
    if not file.is_file():
        subprocess.run([sys.executable, '-m', 'sfsc_timm', *command], check=True)
    found: dict[str, Any] = json.loads(file.read_text())['by_dim']
    return found


def read_runs(folder: Path) -> Runs:
    """Finished runs, by kind and seed."""
    found: Runs = {kind: {} for kind in KINDS}
    for path in sorted(folder.glob('*-seed*.json')):
        run = json.loads(path.read_text())
        found[run['kind']][run['seed']] = run
    return found


def sizes_of(run: dict[str, Any]) -> dict[int, CompatibilityMatrix]:
    """Matrices of a run by size; of a model trained alone, of its cut embeddings."""
    sizes = run.get('cut') or run['matrix']['by_dim']
    return by_size(CompatibilityMatrix.from_dict({**run['matrix'], 'by_dim': sizes}))


def losses(runs: Runs) -> list[tuple[str, float, np.ndarray]]:
    """What is lost, the goal, and the figures: (seeds, 2), the diagonal's mean and that across widths."""

    def means(matrix: CompatibilityMatrix) -> np.ndarray:
        return np.array([matrix.diagonal_mean, matrix.cross_mean])

    nested, alone = runs['nested'], runs['alone']
    rows = []
    for dim, goal in GOALS.items():
        lost = [means(sizes_of(run)[SIZES[-1]]) - means(sizes_of(run)[dim]) for run in nested.values()]
        rows.append((f'{dim} numbers of {SIZES[-1]}', goal, np.array(lost)))
    both = sorted(nested.keys() & alone.keys())
    lost = [
        means(CompatibilityMatrix.from_dict(alone[s]['matrix'])) - means(sizes_of(nested[s])[SIZES[-1]]) for s in both
    ]
    rows.append((f'{SIZES[-1]} numbers of those trained alone', GOAL_ALONE, np.array(lost)))
    return [row for row in rows if len(row[2])]


def markdown(runs: Runs, data: str) -> str:
    """The losses against their goals, and every size of both kinds."""
    lines = [
        f'# {data}: nested embedding sizes, mAP in percent',
        '',
        'Means over seeds, with the standard deviation where there are several. A goal is met where neither the mean '
        'of the self-tests nor that across widths is lower by more.',
        '',
        '| loses at most | of | self-tests | across widths | seeds | met |',
        '|-|-|-|-|-|-|',
    ]
    for name, goal, lost in losses(runs):
        met = 'yes' if (lost.mean(0) <= goal).all() else 'no'
        lines.append(f'| {goal:g} | {name} | {spread(lost[:, 0])} | {spread(lost[:, 1])} | {len(lost)} | {met} |')
    titles = {'nested': 'trained at all sizes', 'alone': 'trained at 256 alone, then cut'}
    for kind, found in runs.items():
        if not found:
            continue
        widths = next(iter(found.values()))['matrix']['widths']
        lines += ['', f'**{titles[kind]}**, seeds {", ".join(map(str, found))}', '']
        heads = ['numbers', 'bytes of a gallery item', *(f'{w:g}' for w in widths), 'self-tests', 'across widths']
        lines += [f'| {" | ".join(heads)} |', '|-' * len(heads) + '|']
        for dim in SIZES:
            matrices = [sizes_of(run)[dim] for run in found.values()]
            cells = [spread(column) for column in np.array([m.self_tests for m in matrices]).T]
            cells += [
                spread(np.array([getattr(m, name) for m in matrices])) for name in ('diagonal_mean', 'cross_mean')
            ]
            lines.append(f'| {dim} | {bytes_per_item(dim)} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def spread(values: np.ndarray) -> str:
    """A mean, with the standard deviation where there are several."""
    return f'{values.mean():.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def main() -> None:
    """Trains what is missing, then writes the table."""
    parser = create_parser(__doc__, ('emoji', 'glyphs'), 'of each kind (0 1 2)')
    parser.add_argument('--kinds', nargs='+', choices=tuple(KINDS), default=list(KINDS), help='which models (both)')
    args = parse_arguments(parser, 'sizes')
    args.output.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    for seed in [] if args.report else args.seeds:
        for kind in args.kinds:
            train(kind, seed, args)
    runs = read_runs(args.output)
    if any(runs.values()):
        (args.output / 'table.md').write_text(markdown(runs, args.data), encoding='utf-8')
        print((args.output / 'table.md').read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
