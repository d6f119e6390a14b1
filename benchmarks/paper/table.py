r"""The paper's table: all six systems and the ablations on the same data, backbone, schedule and evaluation.

    python -m benchmarks.paper.table --data emoji --data-dir emoji
    python -m benchmarks.paper.table --data glyphs --tuned-on emoji --seeds 0
    python -m benchmarks.paper.table --data market1501 --data-dir Market-1501-v15.09.15
    python -m benchmarks.paper.table --data emoji --report   # only draws the table of what is there

Trains what is missing or has other settings by now, one run after the other in a fixed order, and goes on with what was
cut. Each finished run leaves one JSON under benchmarks/results/paper_table/DATA: settings, seed, curves, matrix, time
and machine. From these table.md, table.png and training.png are made. Checkpoints stay in --work-dir. The data sets'
settings stand in configs/ beside this file; where tune.py has chosen some for a system on validation identities
(tuning.json beside the results), these take their place; --tuned-on takes over those of another data set. Settings
after `--` go to every run (`-- --epochs 2 --threads 1`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, save_json
from benchmarks.paper.report import ORDER, report
from benchmarks.paper.runs import (
    CONFIGS,
    RESULTS,
    create_parser,
    flags_of,
    folder_name,
    has_settings,
    parse_arguments,
    read_run,
    read_tuning,
    system_flags,
    train_or_resume,
)
from sfsc_timm.recipes import list_recipes

TUNED_AS = {'uncertainty': 'sfsc', 'projection': 'sfsc'}  # parts of a system take its settings
REPEATED = ('sfsc', 'unified', 'sum', 'uncertainty')  # of which all seeds are run; the others have the first


def train(system: str, seed: int, args: argparse.Namespace) -> bool:
    """Runs or resumes one training and writes its JSON, unless that is there and of the settings of now."""
    chosen = read_tuning(args.output / 'tuning.json').get('chosen', {})
    own = _settings_of(system, chosen)
    result = args.output / f'{system}-seed{seed}.json'
    if result.is_file() and has_settings(json.loads(result.read_text()), args.data, own, args.settings):
        return False
    _take_over_full_network(system, seed, args.work_dir, chosen)
    folder = _folder(system, seed, args.work_dir, chosen)
    flags = [*system_flags(system, args.data, args.data_dir), '--seed', str(seed)]
    train_or_resume(folder, [*flags, *flags_of(own), *args.settings])
    save_json(result, {'system': system, 'seed': seed, **read_run(folder)})
    return True


def _settings_of(system: str, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What tune.py chose for it."""
    return chosen.get(TUNED_AS.get(system, system), {})


def _folder(system: str, seed: int, work_dir: Path, chosen: dict[str, dict[str, Any]]) -> Path:
    """Where its checkpoints go."""
    return work_dir / folder_name(f'{system}-seed{seed}', _settings_of(system, chosen))


def _take_over_full_network(system: str, seed: int, work_dir: Path, chosen: dict[str, dict[str, Any]]) -> None:
    """Systems of separate networks with the same settings begin with the same full one, bit for bit: copies it."""

    def of_full(name: str) -> dict[str, Any]:  # recipes differ in what the smaller networks learn
        return {key: value for key, value in _settings_of(name, chosen).items() if key != 'recipe_kwargs'}

    target = _folder(system, seed, work_dir, chosen) / 'w1'
    if not list_recipes()[system].separate or target.exists():
        return
    for other in ORDER:
        run = _folder(other, seed, work_dir, chosen)
        alike = other != system and list_recipes()[other].separate and of_full(other) == of_full(system)
        if alike and (run / 'matrix.json').is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(run / 'w1', target)
            return


def take_over_settings(target: Path, source: Path, data: str) -> None:
    """Writes what tune.py chose on another data set to `target`, the tuning.json of this one.

    Raises:
        ValueError: Nothing was chosen there, or there are trials on this data set.
    """
    if 'trials' in read_tuning(target):
        raise ValueError(f'--tuned-on is for data sets without trials of their own, and {target} holds some')
    if not (chosen := read_tuning(source).get('chosen')):
        raise ValueError(f'--tuned-on must name a data set that tune.py was run on, got {data!r} ({source} holds none)')
    save_json(target, {'data': data, 'chosen': chosen})


def main() -> None:
    """Trains what is missing, then writes the report."""
    first = f'of {", ".join(REPEATED)}; the others have the first (0 1 2)'
    parser = create_parser(__doc__, (p.stem for p in CONFIGS.glob('*.yaml')), first)
    parser.add_argument('--systems', nargs='+', choices=ORDER, default=list(ORDER), help='which (all)')
    parser.add_argument('--all-seeds', action='store_true', help='every seed for every system')
    parser.add_argument('--tuned-on', metavar='DATA', help='another data set, whose settings by tune.py are taken')
    args = parse_arguments(parser, RESULTS.name)
    if args.tuned_on:
        try:
            take_over_settings(args.output / 'tuning.json', RESULTS / args.tuned_on / 'tuning.json', args.tuned_on)
        except ValueError as error:
            parser.error(str(error))
    args.output.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    for seed in [] if args.report else args.seeds:
        for system in ORDER:
            wanted = seed == args.seeds[0] or system in REPEATED or args.all_seeds
            if system in args.systems and wanted and train(system, seed, args):
                report(args.output, args.data)
    report(args.output, args.data)
    if (args.output / 'table.md').is_file():
        print((args.output / 'table.md').read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
