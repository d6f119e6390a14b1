"""The page of the zoo tells what is registered: weights with their licences."""

from __future__ import annotations

from pathlib import Path

import timm

import sfsc_timm

PAGE = (Path(sfsc_timm.__file__).parent / 'models' / 'README.md').read_text(encoding='utf-8')
ROWS = [[cell.strip(' `') for cell in line.strip('|').split('|')] for line in PAGE.splitlines() if line.startswith('|')]
LICENCES = {'apache-2.0': 'Apache-2.0', 'dinov3-license': 'DINOv3 License'}


def test_weights_and_their_licences() -> None:
    told = {row[0]: row[1] for row in ROWS if len(row) == 2 and '.' in row[0]}
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_pretrained('sfsc_*')]
    registered = {cfg.hf_hub_id.removeprefix('timm/'): LICENCES[cfg.license] for cfg in configs if cfg.hf_hub_id}
    assert told == registered
