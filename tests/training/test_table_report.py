"""The report of benchmarks/paper/table.py on made-up runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import report as table_report

SPREAD = [[50.0, 45.0], [46.0, 60.0]]


def run(system: str, seed: int, cells: list[list[float]]) -> dict[str, Any]:
    curves = [{'epoch': 1, 'conflict_rate': 0.25, 'gradnorm_0.25': 3.0, 'gradnorm_1': 1.0}]
    settings = {'model': 'sfsc_resnet18d', 'epochs': 20, 'batch_size': 128}
    matrix = {'widths': [0.25, 1.0], 'mAP': cells, 'mINP': cells}
    return {'system': system, 'seed': seed, 'settings': settings, 'matrix': matrix, 'curves': {'': curves}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    above = (np.array(SPREAD) + 2).tolist()
    runs = [run('sfsc', 0, SPREAD), run('sfsc', 1, above), run('unified', 0, [[49, 1], [2, 58]])]
    runs += [run('sum', 1, SPREAD), run('bct', 7, SPREAD)]
    for made in runs:
        (tmp_path / f'{made["system"]}-seed{made["seed"]}.json').write_text(json.dumps(made))
    return tmp_path


def test_figures_are_those_of_the_cells(folder: Path) -> None:
    runs = table_report.read_runs(folder)
    assert list(runs) == ['sfsc', 'unified', 'sum', 'bct']
    found = table_report.figures(runs['sfsc'])
    assert found['self_tests'].tolist() == [[50.0, 60.0], [52.0, 62.0]]
    assert found['diagonal'].tolist() == [55.0, 57.0]
    assert found['cross'].tolist() == [45.5, 47.5]
    assert found['compatible'].tolist() == [0.0, 0.0]
    assert found['update_gain'] == pytest.approx([-0.5, -0.5])  # (45 - 50) / (60 - 50)


def test_margins_are_paired_by_seed(folder: Path) -> None:
    runs = table_report.read_runs(folder)
    less_sum = table_report.margins(runs['sfsc'], runs['sum'])
    assert less_sum['diagonal'].tolist() == [2.0]  # seed 1 alone; the means differ by 1
    less_unified = table_report.margins(runs['sfsc'], runs['unified'])
    assert less_unified['self_tests'].tolist() == [[1.0, 2.0]]
    assert np.isnan(less_unified['cross']).all()  # cells that mean nothing are no rival
    assert table_report.margins(runs['sfsc'], runs['bct']) == {}


def test_report_warns_of_runs_that_are_not_alike(folder: Path) -> None:
    table_report.report(folder, 'emoji')
    assert 'differ in more than their seed' not in (folder / 'table.md').read_text(encoding='utf-8')
    other = run('sfsc', 2, SPREAD)
    other['settings']['epochs'] = 30
    (folder / 'sfsc-seed2.json').write_text(json.dumps(other))
    table_report.report(folder, 'emoji')
    assert '**The runs of SFSC differ in more' in (folder / 'table.md').read_text(encoding='utf-8')


def test_report_holds_spread_margins_and_trials(folder: Path) -> None:
    trials = [
        {'system': 'sfsc', 'trial': {}, 'diagonal': 50.0, 'cross': 47.0},
        {'system': 'sfsc', 'trial': {'triplet': 2.0}, 'diagonal': 51.0, 'cross': 48.0, 'compatible': 2},
        {'system': 'unified', 'trial': {}, 'diagonal': 45.0},
    ]
    chosen = {'sfsc': {'triplet': 2.0}, 'unified': {}}
    (folder / 'tuning.json').write_text(json.dumps({'trials': trials, 'chosen': chosen}))
    table_report.report(folder, 'emoji')
    text = (folder / 'table.md').read_text(encoding='utf-8')
    assert '| SFSC | 2 | 51.00 ± 1.41 | 61.00 ± 1.41 | 56.00 ± 1.41 | 46.50 ± 1.41 | 0.0 of 2 | -0.50 ± 0.00 |' in text
    assert '| Unified Model | 1 | 49.00 | 58.00 | 53.50 | - | - | - |' in text
    assert '| φ1/16 | 51.00 | 46.00 (-0.50) |\n| φ | 47.00 | 61.00 |' in text
    assert '| Sum | 1 | +2.00 | +2.00 | +2.00 | +2.00 |' in text
    assert '| SFSC | **--triplet 2.0** | 51.00 | 48.00 | 2 |' in text
    assert '| Unified Model | **none** | 45.00 | - | - |' in text
    assert (folder / 'table.png').stat().st_size > 0
    assert (folder / 'training.png').stat().st_size > 0


def test_report_says_where_settings_come_from(folder: Path) -> None:
    (folder / 'tuning.json').write_text(json.dumps({'data': 'emoji', 'chosen': {'sfsc': {}}}))
    table_report.report(folder, 'glyphs')
    text = (folder / 'table.md').read_text(encoding='utf-8')
    assert 'the same for all systems, with the settings that tune.py chose for each on emoji (parts' in text
    assert 'Trials' not in text


def test_report_names_the_batch_only_if_all_have_the_same(folder: Path) -> None:
    size = run('sfsc', 0, SPREAD)['settings']['batch_size']
    table_report.report(folder, 'emoji')
    assert f'epochs, batch {size}, the same' in (folder / 'table.md').read_text(encoding='utf-8')
    other = run('sfsc', 0, SPREAD)
    other['settings']['batch_size'] = size // 2
    (folder / 'sfsc-seed0.json').write_text(json.dumps(other))
    table_report.report(folder, 'emoji')
    assert 'epochs, the same' in (folder / 'table.md').read_text(encoding='utf-8')
