r"""Chooses each system's settings for the paper's table, on validation identities, by as many trials for all of them.

    python -m benchmarks.paper.tune --data emoji --data-dir emoji
    python -m benchmarks.paper.tune --data emoji --data-dir emoji --systems sfsc unified -- --threads 1

The trials stand in configs/trials beside this file: a few settings in place of those of configs/, for every system.
Each is trained on 80 % of the training identities and measured on the others; test identities are never looked at. The
trial of each system with the best mean across widths (of the diagonal, where there is nothing else) is chosen; where
others come as near to it as one seed cannot tell apart, one that makes every pair of widths compatible goes before one
that does not. All figures and the choice go to tuning.json under benchmarks/results/paper_table/DATA, from where
table.py takes its settings. What is cut goes on, finished trials are not repeated, and several processes may
share the systems.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import describe_machine, save_json
from benchmarks.paper.runs import (
    CONFIGS,
    RESULTS,
    flags_of,
    folder_name,
    read_run,
    read_tuning,
    system_flags,
    train_or_resume,
)
from sfsc_timm.evaluation import CompatibilityMatrix
from sfsc_timm.recipes import list_recipes

ALIKE = 0.5  # mAP by which the scores of two trials differ at most that one seed cannot tell apart


def read_trials(path: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """What all trials have in common, and those of each system.

    Raises:
        ValueError: A system has more trials than another, or is no recipe.
    """
    found = yaml.safe_load(path.read_text())
    trials = {system: [own or {} for own in several] for system, several in found['systems'].items()}
    if unknown := trials.keys() - list_recipes().keys():
        raise ValueError(f'{path} holds {sorted(unknown)}, which are no recipes; known are {sorted(list_recipes())}')
    counts = {system: len(several) for system, several in trials.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'{path} must give all systems the same number of trials, got {counts}')
    return found['common'], trials


def measure(system: str, folder: Path, own: dict[str, Any]) -> dict[str, Any]:
    """The line of a finished trial."""
    run = read_run(folder)
    matrix = CompatibilityMatrix.from_dict(run['matrix'])
    row = {
        'system': system,
        'trial': own,
        'self_tests': [round(float(v), 2) for v in matrix.self_tests],
        'diagonal': round(matrix.diagonal_mean, 2),
        'seconds': round(run['seconds']),
    }
    if not list_recipes()[system].is_compatible:
        return {**row, 'score': row['diagonal']}
    cross = round(matrix.cross_mean, 2)
    return {**row, 'cross': cross, 'score': cross, 'compatible': matrix.num_compatible}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished trials."""
    return list(read_tuning(path).get('trials', []))


def add_row(path: Path, common: dict[str, Any], row: dict[str, Any]) -> None:
    """Adds a trial to those in the file (another process may have added some) and chooses the best of each system."""
    rows = [*read_rows(path), row]
    systems = list(dict.fromkeys(found['system'] for found in rows))
    chosen = {system: choose([found for found in rows if found['system'] == system])['trial'] for system in systems}
    save_json(path, {'common': common, 'chosen': chosen, 'trials': rows})


def choose(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of one system's trials, the first of equals."""
    best = max(row['score'] for row in rows)

    def is_compatible(row: dict[str, Any]) -> bool:
        widths = len(row['self_tests'])
        return bool(row.get('compatible') == widths * (widths - 1))

    near = [row for row in rows if row['score'] >= best - ALIKE]
    return max(near, key=lambda row: (is_compatible(row), row['score']))


def main() -> None:
    """Runs the trials that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(p.stem for p in (CONFIGS / 'trials').glob('*.yaml'))
    parser.add_argument('--data', required=True, choices=names)
    parser.add_argument('--data-dir', type=Path, help='where it lies')
    parser.add_argument('--systems', nargs='+', help='which (all)')
    parser.add_argument('--work-dir', type=Path, help='where runs go (output/tune/DATA)')
    parser.add_argument('--output', type=Path, help='the results (benchmarks/results/paper_table/DATA/tuning.json)')
    parser.add_argument('settings', nargs=argparse.REMAINDER, help='after --: flags of sfsc-timm train for every trial')
    args = parser.parse_args()
    settings = [flag for flag in args.settings if flag != '--']
    work_dir = args.work_dir or Path('output/tune') / args.data
    output = args.output or RESULTS / args.data / 'tuning.json'
    common, trials = read_trials(CONFIGS / 'trials' / f'{args.data}.yaml')
    print(describe_machine())
    for system in args.systems or trials:
        for own in trials[system]:
            if any(row['system'] == system and row['trial'] == own for row in read_rows(output)):
                continue
            folder = work_dir / folder_name(system, own)
            flags = system_flags(system, args.data, args.data_dir)
            train_or_resume(folder, [*flags, *flags_of({**common, **own}), *settings])
            row = measure(system, folder, own)
            add_row(output, common, row)
            print(row, flush=True)


if __name__ == '__main__':
    main()
