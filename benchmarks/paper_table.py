r"""The paper's table: all six systems and the ablations on the same data, backbone, schedule and evaluation.

    python benchmarks/paper_table.py --data emoji --data-dir emoji
    python benchmarks/paper_table.py --data glyphs --systems sfsc unified sum --seeds 0
    python benchmarks/paper_table.py --data market1501 --data-dir Market-1501-v15.09.15
    python benchmarks/paper_table.py --data emoji --report   # only draws the table of what is there

Trains what is missing, one run after the other in a fixed order, and goes on with what was cut. Each finished run
leaves one JSON under benchmarks/results/paper_table/DATA: settings, seed, curves, matrix, time and machine. From these
table.md, table.png and training.png are made. Checkpoints stay in --work-dir. What the data sets' settings are stands
in benchmarks/configs; where tune.py has chosen some for a system on validation identities (tuning.json beside the
results), these take their place. Settings after `--` go to every run (`-- --epochs 2 --threads 1`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, save_json
from runs import CONFIGS, flags_of, read_run, system_flags, train_or_resume

from sfsc_timm.evaluation import paper_name
from sfsc_timm.recipes import list_recipes

HERE = Path(__file__).parent
ORDER = (
    'sfsc',
    'unified',
    'sum',
    'bct-s',
    'sfsc-paper',
    'uncertainty',
    'projection',
    'asymmetric-s',
    'bct',
    'asymmetric',
)
TUNED_AS = {'uncertainty': 'sfsc', 'projection': 'sfsc'}  # parts of a system take its settings
REPEATED = ('sfsc', 'unified', 'sum')  # of which all seeds are run; the others have the first


def train(system: str, seed: int, args: argparse.Namespace, result: Path) -> None:
    """Runs or resumes one training, and writes its JSON."""
    folder = args.work_dir / f'{system}-seed{seed}'
    flags = [*system_flags(system, args.data, args.data_dir), '--seed', str(seed)]
    chosen = chosen_settings(args.output)
    _take_over_full_network(system, seed, args.work_dir, chosen)
    train_or_resume(folder, [*flags, *flags_of(chosen.get(TUNED_AS.get(system, system), {})), *args.settings])
    save_json(result, {'system': system, 'seed': seed, **read_run(folder)})


def chosen_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """What tune.py chose for each system, empty if it was not run."""
    path = folder / 'tuning.json'
    return dict(json.loads(path.read_text())['chosen']) if path.is_file() else {}


def _take_over_full_network(system: str, seed: int, work_dir: Path, chosen: dict[str, dict[str, Any]]) -> None:
    """Systems of separate networks with the same settings begin with the same full one, bit for bit: copies it."""

    def of_full(name: str) -> dict[str, Any]:  # recipes differ in what the smaller networks learn
        return {key: value for key, value in chosen.get(name, {}).items() if key != 'recipe_kwargs'}

    target = work_dir / f'{system}-seed{seed}' / 'w1'
    if not list_recipes()[system].separate or target.exists():
        return
    for other in ORDER:
        run = work_dir / f'{other}-seed{seed}'
        alike = other != system and list_recipes()[other].separate and of_full(other) == of_full(system)
        if alike and (run / 'matrix.json').is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(run / 'w1', target)
            return


Runs = dict[str, list[dict[str, Any]]]


def read_runs(folder: Path) -> Runs:
    """The finished runs of each system, by seed."""
    found: Runs = defaultdict(list)
    for path in sorted(folder.glob('*-seed*.json')):
        run = json.loads(path.read_text())
        found[run['system']].append(run)
    return {name: sorted(found[name], key=lambda run: run['seed']) for name in ORDER if name in found}


def stack(runs: list[dict[str, Any]]) -> np.ndarray:
    """Percent (seeds, m, m), NaN where a cell means nothing."""
    cells = np.array([run['matrix']['mAP'] for run in runs], dtype=float)
    if not list_recipes()[runs[0]['system']].is_compatible:
        cells[:, ~np.eye(cells.shape[1], dtype=bool)] = np.nan
    return cells


def figures(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Diagonal mean, cross mean and compatible cells of each seed."""
    size = cells.shape[1]
    diagonal = np.diagonal(cells, axis1=1, axis2=2)
    off = ~np.eye(size, dtype=bool)
    weaker = np.minimum(diagonal[:, :, None], diagonal[:, None, :])
    return {
        'diagonal': diagonal.mean(1),
        'cross': cells[:, off].mean(1),
        'compatible': (cells > weaker)[:, off].sum(1).astype(float),
    }


def markdown(runs: Runs, data: str, is_tuned: bool) -> str:
    """The table in the paper's layout, and the means with their spread."""
    first = next(iter(runs.values()))[0]
    widths = first['matrix']['widths']
    names = [paper_name(w) for w in widths]
    settings = first['settings']
    lines = [
        f'# {data}: M(φq, φg), mAP in percent',
        '',
        f'{settings["model"]}, {settings["epochs"]} epochs, batch {settings["batch_size"]}, '
        + ('averaged weights, ' if settings.get('model_ema') else '')
        + 'the same for all systems'
        + (', with the settings that tune.py chose for each' if is_tuned else '')
        + '. Means over seeds, with the standard deviation where there are several. Each run '
        'is one JSON beside this file.',
        '',
        f'| system | seeds | {" | ".join(f"{n}/{n}" for n in names)} | diagonal | cross | above the weaker self-test |',
        '|-|-|' + '-|' * (len(names) + 3),
    ]
    for system, found in runs.items():
        cells = stack(found)
        means = figures(cells)
        row = [f'{value:.2f}' for value in np.diagonal(cells.mean(0))]
        row += [_spread(means['diagonal']), _spread(means['cross'])]
        possible = len(names) * (len(names) - 1)
        row += ['-' if np.isnan(means['cross']).any() else f'{means["compatible"].mean():.1f} of {possible}']
        lines.append(f'| {list_recipes()[system].title} | {len(found)} | {" | ".join(row)} |')
    for system, found in runs.items():
        cells = stack(found).mean(0)
        lines += ['', f'**{list_recipes()[system].title}**', '', f'| query \\ gallery | {" | ".join(names)} |']
        lines += ['|-|' + '-|' * len(names)]
        for name, row in zip(names, cells, strict=True):
            lines.append(f'| {name} | ' + ' | '.join('-' if np.isnan(v) else f'{v:.2f}' for v in row) + ' |')
    return '\n'.join(lines) + '\n'


def _spread(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return '-'
    return f'{values.mean():.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def draw_table(runs: Runs, path: Path, data: str) -> None:
    """All matrices on one scale of colours."""
    from matplotlib.figure import Figure

    matrices = {list_recipes()[name].title: stack(found).mean(0) for name, found in runs.items()}
    values = np.concatenate([cells[~np.isnan(cells)] for cells in matrices.values()])
    columns = min(5, len(matrices))
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(2.9 * columns, 0.6 + 2.9 * rows), layout='constrained')
    widths = next(iter(runs.values()))[0]['matrix']['widths']
    names = [paper_name(w) for w in widths]
    for place, (title, cells) in enumerate(matrices.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(cells, vmin=values.min(), vmax=values.max(), cmap='viridis')
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        middle = (values.min() + values.max()) / 2
        for (i, j), value in np.ndenumerate(cells):
            if not np.isnan(value):
                colour = 'black' if value > middle else 'white'
                axes.text(j, i, f'{value:.1f}', ha='center', va='center', fontsize=9, color=colour)
    figure.suptitle(f'M(query, gallery) on {data}, mAP in percent: rows query, columns gallery', fontsize=11)
    figure.savefig(path, dpi=120)


def draw_training(runs: Runs, path: Path) -> None:
    """Rate of conflicts and each width's gradient norm over training, of the systems that train all widths."""
    from matplotlib.figure import Figure

    joint = {name: found[0]['curves'][''] for name, found in runs.items() if '' in found[0]['curves']}
    if not joint:
        return
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name, rows in joint.items():
        epochs = [row['epoch'] for row in rows]
        left.plot(epochs, [100 * (row['conflict_rate'] or 0) for row in rows], label=list_recipes()[name].title)
    left.set(title='Conflicting pairs of widths (per decision of the scope)', xlabel='epoch', ylabel='percent')
    left.legend(fontsize=8, frameon=False)
    for name in ('sum', 'sfsc'):
        if name in joint:
            style = '--' if name == 'sum' else '-'
            columns = [key for key in joint[name][0] if key.startswith('gradnorm_')]
            for index, column in enumerate(columns):
                label = f'{list_recipes()[name].title} {column.removeprefix("gradnorm_")}'
                values = [row[column] for row in joint[name]]
                right.plot([row['epoch'] for row in joint[name]], values, style, color=f'C{index}', label=label)
    right.set(title="Norm of each width's gradient", xlabel='epoch', yscale='log')
    right.legend(fontsize=8, frameon=False, ncols=2)
    figure.savefig(path, dpi=120)


def report(folder: Path, data: str) -> None:
    """Writes table.md, table.png and training.png from the finished runs."""
    runs = read_runs(folder)
    if not runs:
        return
    (folder / 'table.md').write_text(markdown(runs, data, bool(chosen_settings(folder))))
    draw_table(runs, folder / 'table.png', data)
    draw_training(runs, folder / 'training.png')


def main() -> None:
    """Trains what is missing, then writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, choices=sorted(p.stem for p in CONFIGS.glob('*.yaml')))
    parser.add_argument('--data-dir', type=Path, help='where it lies')
    parser.add_argument('--systems', nargs='+', choices=ORDER, default=list(ORDER), help='which (all)')
    first = f'of {", ".join(REPEATED)}; the others have the first (0 1 2)'
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help=first)
    parser.add_argument('--all-seeds', action='store_true', help='every seed for every system')
    parser.add_argument('--work-dir', type=Path, help='where checkpoints go (output/paper_table/DATA)')
    parser.add_argument('--output', type=Path, help='where results go (benchmarks/results/paper_table/DATA)')
    parser.add_argument('--report', action='store_true', help='train nothing, draw what is there')
    parser.add_argument('settings', nargs=argparse.REMAINDER, help='after --: flags of sfsc-timm train for every run')
    args = parser.parse_args()
    args.settings = [flag for flag in args.settings if flag != '--']
    args.work_dir = args.work_dir or Path('output/paper_table') / args.data
    args.output = args.output or HERE / 'results' / 'paper_table' / args.data
    args.output.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    for seed in [] if args.report else args.seeds:
        for system in ORDER:
            result = args.output / f'{system}-seed{seed}.json'
            wanted = seed == args.seeds[0] or system in REPEATED or args.all_seeds
            if system in args.systems and wanted and not result.is_file():
                train(system, seed, args, result)
                report(args.output, args.data)
    report(args.output, args.data)
    if (args.output / 'table.md').is_file():
        print((args.output / 'table.md').read_text())


if __name__ == '__main__':
    main()
