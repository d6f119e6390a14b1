"""Trainings by `sfsc-timm train` that a benchmark starts, goes on with after a cut, and writes down."""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sfsc_timm.training import read_config

CONFIGS = Path(__file__).parent / 'configs'
RESULTS = Path(__file__).parents[1] / 'results' / 'paper_table'  # a folder for each data set


def create_parser(doc: str | None, data: Iterable[str], seeds: str | None = None) -> argparse.ArgumentParser:
    """Flags of a benchmark that trains on a data set, with several seeds.

    Args:
        doc: Of its module.
        data: Data sets to choose from.
        seeds: What is trained with each seed, for the help.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, choices=sorted(data))
    parser.add_argument('--data-dir', type=Path, help='where it lies')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help=seeds)
    parser.add_argument('--work-dir', type=Path, help='where checkpoints go (output/BENCHMARK/DATA)')
    parser.add_argument('--output', type=Path, help='where results go (benchmarks/results/BENCHMARK/DATA)')
    parser.add_argument('--report', action='store_true', help='train nothing, draw what is there')
    parser.add_argument('settings', nargs=argparse.REMAINDER, help='after --: flags of sfsc-timm train for every run')
    return parser


def parse_arguments(parser: argparse.ArgumentParser, benchmark: str) -> argparse.Namespace:
    """Reads the flags of `create_parser`, with the folders that are meant where none is given.

    Args:
        parser: With further flags.
        benchmark: Name of its folders.
    """
    args = parser.parse_args()
    args.settings = [flag for flag in args.settings if flag != '--']
    args.work_dir = args.work_dir or Path('output') / benchmark / args.data
    args.output = args.output or RESULTS.parent / benchmark / args.data
    return args


def train_or_resume(folder: Path, flags: list[str]) -> None:
    """Trains a run in `folder` by these flags, goes on with it if it was cut, or leaves it if it is finished."""
    if (folder / 'matrix.json').is_file():
        return
    command = [sys.executable, '-m', 'sfsc_timm', 'train']
    if (folder / 'args.yaml').is_file():
        command += ['--resume', str(folder)]
    else:
        command += ['--output', str(folder.parent), '--experiment', folder.name, *flags]
    print(f'{folder.name}: {" ".join(command[1:])}', flush=True)
    subprocess.run(command, check=True)


def read_run(folder: Path) -> dict[str, Any]:
    """What is kept of a finished run: settings, seconds, matrix, and the curves of each of its networks."""
    settings = read_config(folder / 'args.yaml')
    for private in ('data_dir', 'output', 'experiment'):
        settings.pop(private, None)
    matrix = json.loads((folder / 'matrix.json').read_text())
    matrix.pop('settings', None)
    parts = sorted(folder.glob('w*/summary.csv')) or [folder / 'summary.csv']
    curves = {'' if part.parent == folder else part.parent.name: _rows(part) for part in parts}
    seconds = sum(float(rows[-1]['seconds'] or 0) for rows in curves.values())
    return {'settings': settings, 'seconds': seconds, 'matrix': matrix, 'curves': curves}


def _rows(path: Path) -> list[dict[str, float | None]]:
    with path.open(newline='', encoding='utf-8') as file:
        return [
            {key: round(float(value), 5) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def read_tuning(path: Path) -> dict[str, Any]:
    """What tune.py found, empty if it was not run."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def system_flags(system: str, data: str, data_dir: Path | None) -> list[str]:
    """Flags by which a system is trained on a data set with the settings in benchmarks/paper/configs."""
    flags = ['--config', str(CONFIGS / f'{data}.yaml'), '--recipe', system]
    return flags if data_dir is None else [*flags, '--data-dir', str(data_dir)]


def folder_name(name: str, own: dict[str, Any]) -> str:
    """Of a run, by what it is, so that one with other settings is never taken for it."""
    return re.sub(r'[^\w.=]+', '-', ' '.join([name, *flags_of(own)]))


def has_settings(run: dict[str, Any], data: str, own: dict[str, Any], besides: list[str]) -> bool:
    """Whether a finished run was trained as it would be now.

    Args:
        run: What `read_run` found.
        data: Its data set, whose settings stand in benchmarks/paper/configs.
        own: Settings in their place.
        besides: Further flags; settings that they name are not compared.
    """
    wanted = {'recipe_kwargs': {}, **read_config(CONFIGS / f'{data}.yaml'), **own}
    free = {flag.removeprefix('--').removeprefix('no-').replace('-', '_') for flag in besides if flag[:2] == '--'}
    return all(run['settings'].get(name) == value for name, value in wanted.items() if name not in free)


def flags_of(settings: dict[str, Any]) -> list[str]:
    """Settings, by the names they have in YAML, as flags of `sfsc-timm train`."""
    flags = []
    for name, value in settings.items():
        flag = f'--{name.replace("_", "-")}'
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace('--', '--no-', 1))
        elif isinstance(value, dict):
            flags += [flag, *(f'{key}={own}' for key, own in value.items())]
        else:
            flags += [flag, *map(str, value if isinstance(value, list) else [value])]
    return flags
