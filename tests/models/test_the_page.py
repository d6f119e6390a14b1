"""The page of the zoo tells what is registered: weights with their licences, and what each width costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

import sfsc_timm
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


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'mobilenetv3_small_100'])
def test_costs_of_each_width(name: str) -> None:
    model: Any = timm.create_model(f'sfsc_{name}', num_classes=0, device='meta').eval()
    [(_, side, widths, params, macs)] = [row for row in ROWS if len(row) == 5 and row[0] == name]
    assert widths == ' / '.join(f'{width:g}' for width in model.widths)
    costs = [model_cost(model.extract(width), (3, int(side), int(side))) for width in model.widths]
    assert params == ' / '.join(si_number(cost.params) for cost in costs)
    assert macs == ' / '.join(si_number(cost.macs) for cost in costs)
