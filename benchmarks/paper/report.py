"""The paper's table, its margins and its figures, drawn from one JSON per run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.runs import flags_of, read_tuning
from sfsc_timm.evaluation import CompatibilityMatrix, paper_name
from sfsc_timm.evaluation.tables import update_gain
from sfsc_timm.recipes import list_recipes

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
Runs = dict[str, list[dict[str, Any]]]


def read_runs(folder: Path) -> Runs:
    """The finished runs of each system, by seed."""
    found: Runs = defaultdict(list)
    for path in sorted(folder.glob('*-seed*.json')):
        run = json.loads(path.read_text())
        found[run['system']].append(run)
    return {name: sorted(found[name], key=lambda run: run['seed']) for name in ORDER if name in found}


def unlike(runs: Runs) -> list[str]:
    """Systems whose runs differ in more than their seed, as when settings changed before all of them were repeated."""

    def settings(run: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in run['settings'].items() if name != 'seed'}

    return [name for name, found in runs.items() if any(settings(run) != settings(found[0]) for run in found)]


def stack(runs: list[dict[str, Any]]) -> np.ndarray:
    """Percent (seeds, m, m), NaN where a cell means nothing."""
    cells = np.array([run['matrix']['mAP'] for run in runs], dtype=float)
    if not list_recipes()[runs[0]['system']].is_compatible:
        cells[:, ~np.eye(cells.shape[1], dtype=bool)] = np.nan
    return cells


def figures(runs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Of each seed: self-tests (seeds, m), diagonal and cross mean, compatible cells, update gain.

    What compares widths is NaN where they are not meant to be compared; an update gain is NaN, too, where the bigger
    widths are hardly better (see `CompatibilityMatrix.update_gain`).
    """
    matrices = [CompatibilityMatrix.from_dict(run['matrix']) for run in runs]
    is_compatible = list_recipes()[runs[0]['system']].is_compatible
    return {
        'self_tests': np.array([matrix.self_tests for matrix in matrices]),
        'diagonal': np.array([matrix.diagonal_mean for matrix in matrices]),
        'cross': np.array([matrix.cross_mean if is_compatible else np.nan for matrix in matrices]),
        'compatible': np.array([matrix.num_compatible if is_compatible else np.nan for matrix in matrices]),
        'update_gain': np.array([matrix.update_gain if is_compatible else np.nan for matrix in matrices]),
    }


def margins(ours: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """By how much one system is above another, for each seed that both have: `figures` of one less the other's."""
    by_seed = {run['seed']: run for run in other}
    both = [run for run in ours if run['seed'] in by_seed]
    if not both:
        return {}
    mine, others = figures(both), figures([by_seed[run['seed']] for run in both])
    return {name: mine[name] - others[name] for name in ('self_tests', 'diagonal', 'cross')}


def markdown(runs: Runs, data: str, tuning: dict[str, Any]) -> str:
    """The means with their spread, SFSC's margins under the same seed, the matrices and the trials before them."""
    first = next(iter(runs.values()))[0]
    names = [paper_name(w) for w in first['matrix']['widths']]
    lines = [
        f'# {data}: M(φq, φg), mAP in percent',
        '',
        _conditions(runs, tuning),
        '',
        *_means(runs, names),
    ]
    if mixed := unlike(runs):
        titles = ', '.join(map(_title, mixed))
        lines += [
            '',
            f'**The runs of {titles} differ in more than their seed; run table.py again to replace old ones.**',
        ]
    for system in ('sfsc', 'sfsc-paper'):
        if system in runs:
            lines += _margins(runs, system, names)
    lines += ['', 'Mean over seeds of every pair; in parentheses its update gain, where the gallery model is bigger.']
    for system, found in runs.items():
        lines += ['', f'**{_title(system)}**', '', *_table([r'query \ gallery', *names]), *_cells(found, names)]
    return '\n'.join(lines + _trials(tuning)) + '\n'


def _conditions(runs: Runs, tuning: dict[str, Any]) -> str:
    """What is the same for all systems, and what is not."""
    every = [run['settings'] for found in runs.values() for run in found]
    alike = [every[0]['model'], f'{every[0]["epochs"]} epochs']
    if len({settings['batch_size'] for settings in every}) == 1:
        alike.append(f'batch {every[0]["batch_size"]}')
    if every[0].get('model_ema'):
        alike.append('averaged weights')
    text = f'{", ".join(alike)}, the same for all systems'
    if tuning:
        where = f' on {tuning["data"]}' if 'data' in tuning else ''
        text += f', with the settings that tune.py chose for each{where} (parts of SFSC take those of SFSC)'
    spread = 'Means over seeds, with the standard deviation where there are several.'
    return f'{text}. {spread} Each run is one JSON beside this file.'


def _means(runs: Runs, names: list[str]) -> list[str]:
    self_tests = [f'{name}/{name}' for name in names]
    lines = _table(['system', 'seeds', *self_tests, 'diagonal', 'cross', 'above the weaker self-test', 'update gain'])
    for system, found in runs.items():
        means = figures(found)
        row = [_spread(values) for values in means['self_tests'].T]
        row += [_spread(means['diagonal']), _spread(means['cross'])]
        possible = len(names) * (len(names) - 1)
        row += ['-' if np.isnan(means['cross']).any() else f'{means["compatible"].mean():.1f} of {possible}']
        row += [_spread(means['update_gain'])]
        lines.append(f'| {_title(system)} | {len(found)} | {" | ".join(row)} |')
    return lines


def _cells(found: list[dict[str, Any]], names: list[str]) -> list[str]:
    """The matrix of a system with the update gains of its means."""
    cells = stack(found).mean(0)
    mean = CompatibilityMatrix(tuple(found[0]['matrix']['widths']), cells, cells, {})
    lines = []
    for i, name in enumerate(names):
        row = ['-' if np.isnan(value) else f'{value:.2f}' for value in cells[i]]
        for j in range(i + 1, len(names)):
            row[j] += '' if np.isnan(cells[i, j]) else f' ({update_gain(mean, i, j)})'
        lines.append(f'| {name} | {" | ".join(row)} |')
    return lines


def _margins(runs: Runs, system: str, names: list[str]) -> list[str]:
    """Paired by seed: what a seed does to all systems alike cancels."""
    lines = ['', f'**{_title(system)} less each other system, under the same seed**', '']
    lines += _table(['less', 'seeds', *[f'{name}/{name}' for name in names], 'diagonal', 'cross'])
    for other, found in runs.items():
        apart = margins(runs[system], found) if other != system else {}
        if apart:
            row = [_spread(values, sign='+') for values in apart['self_tests'].T]
            row += [_spread(apart[name], sign='+') for name in ('diagonal', 'cross')]
            lines.append(f'| {_title(other)} | {len(apart["diagonal"])} | {" | ".join(row)} |')
    return lines


def _trials(tuning: dict[str, Any]) -> list[str]:
    if 'trials' not in tuning:
        return []
    lines = ['', '**Trials on validation identities, the same number for every system** (chosen ones in bold)', '']
    lines += _table(['system', 'settings in place of the common ones', 'diagonal', 'cross', 'compatible pairs'])
    for row in sorted(tuning['trials'], key=lambda row: ORDER.index(row['system'])):
        own = ' '.join(flags_of(row['trial'])) or 'none'
        own = f'**{own}**' if tuning['chosen'][row['system']] == row['trial'] else own
        cross = f'{row["cross"]:.2f}' if 'cross' in row else '-'
        compatible = row.get('compatible', '-')  # the first trials did not count them
        lines.append(f'| {_title(row["system"])} | {own} | {row["diagonal"]:.2f} | {cross} | {compatible} |')
    return lines


def _table(columns: list[str]) -> list[str]:
    return [f'| {" | ".join(columns)} |', '|-' * len(columns) + '|']


def _title(system: str) -> str:
    return list_recipes()[system].title


def _spread(values: np.ndarray, sign: str = '') -> str:
    if np.isnan(values).any():
        return '-'
    return f'{values.mean():{sign}.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def draw_table(runs: Runs, path: Path, data: str) -> None:
    """All matrices on one scale of colours."""
    from matplotlib.figure import Figure

    matrices = {_title(name): stack(found).mean(0) for name, found in runs.items()}
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
        left.plot(epochs, [100 * (row['conflict_rate'] or 0) for row in rows], label=_title(name))
    left.set(title='Conflicting pairs of widths (per decision of the scope)', xlabel='epoch', ylabel='percent')
    left.legend(fontsize=8, frameon=False)
    for name in ('sum', 'sfsc'):
        if name in joint:
            style = '--' if name == 'sum' else '-'
            columns = [key for key in joint[name][0] if key.startswith('gradnorm_')]
            for index, column in enumerate(columns):
                label = f'{_title(name)} {column.removeprefix("gradnorm_")}'
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
    (folder / 'table.md').write_text(markdown(runs, data, read_tuning(folder / 'tuning.json')), encoding='utf-8')
    draw_table(runs, folder / 'table.png', data)
    draw_training(runs, folder / 'training.png')
