"""The page of the zoo tells what is registered: weights with their licences, and what each width costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

import sfsc_timm
from benchmarks.zoo.members import OUTPUT, SUITE, Member, markdown, read_members
from sfsc_timm.evaluation import model_cost
from sfsc_timm.evaluation.tables import si_number

PAGE = (Path(sfsc_timm.__file__).parent / 'models' / 'README.md').read_text(encoding='utf-8')
ROWS = [[cell.strip(' `') for cell in line.strip('|').split('|')] for line in PAGE.splitlines() if line.startswith('|')]
LICENCES = {'apache-2.0': 'Apache-2.0', 'dinov3-license': 'DINOv3 License'}


def test_weights_and_their_licences() -> None:
    told = {row[0]: row[1] for row in ROWS if len(row) == 2 and '.' in row[0]}
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_pretrained('sfsc_*')]
    registered = {cfg.hf_hub_id.removeprefix('timm/'): LICENCES[cfg.license] for cfg in configs if cfg.hf_hub_id}
    assert told == registered


def test_every_member_has_its_costs() -> None:
    told = {row[0] for row in ROWS if len(row) == 5 and timm.is_model(f'sfsc_{row[0]}')}
    assert told == {name.removeprefix('sfsc_') for name in timm.list_models('sfsc_*')}


def test_what_the_members_pass() -> None:
    members, suite = read_members(OUTPUT), read_members(SUITE)
    assert members.keys() <= set(timm.list_models('sfsc_*'))
    assert not any(found['failed'] for found in members.values())
    assert all(found.keys() <= {'passed', 'skipped', 'others'} for found in suite.values())
    assert markdown(members, suite) in PAGE


@pytest.mark.parametrize(
    'found, cell',
    [
        (None, 'not run'),
        ({'passed': 11, 'others': {}}, '11 pass'),
        ({'passed': 9, 'skipped': 1, 'others': {}}, '9 pass, 1 left out'),
        ({'skipped': 10, 'others': {}}, '0 pass, 10 left out'),
        ({'passed': 8, 'failure': 1, 'error': 2, 'others': {}}, '8 pass, 3 fail'),
        ({'others': {}}, 'found none'),
    ],
)
def test_what_is_told_of_timms_tests(found: Member | None, cell: str) -> None:
    member = {
        'widths': [0.5, 1.0],
        'compile': {'widths': [0.5, 1.0], 'graphs': 2},
        'onnx': {'0.5': 1e-7, '1': None},
        'plain': {'0.5': False, '1': True},
        'narrow': {'0.5': 0.0, '1': 0.0},
    }
    table = markdown({'sfsc_a': member}, {} if found is None else {'sfsc_a': found})
    assert table.splitlines()[-1] == f'| `a` | {cell} | each width | 0.5 | 1 | each width |'


def test_a_member_of_which_timms_tests_alone_were_run() -> None:
    assert markdown({}, {'sfsc_a': {'passed': 2, 'others': {}}}).endswith('| `a` | 2 pass |' + ' not run |' * 4 + '\n')


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'mobilenetv3_small_100'])
def test_costs_of_each_width(name: str) -> None:
    model: Any = timm.create_model(f'sfsc_{name}', num_classes=0, device='meta').eval()
    [(_, side, widths, params, macs)] = [row for row in ROWS if len(row) == 5 and row[0] == name]
    assert widths == ' / '.join(f'{width:g}' for width in model.widths)
    costs = [model_cost(model.extract(width), (3, int(side), int(side))) for width in model.widths]
    assert params == ' / '.join(si_number(cost.params) for cost in costs)
    assert macs == ' / '.join(si_number(cost.macs) for cost in costs)
