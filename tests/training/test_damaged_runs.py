"""A run whose state is damaged is refused by the name of the file, before it trains."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.small_runs import SETTINGS

from sfsc_timm.cli.main import main
from sfsc_timm.training.checkpoint import SECTION


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('runs')
    settings = folder / 'run.yaml'
    settings.write_text(yaml.safe_dump({**SETTINGS, 'epochs': 1, 'warmup_epochs': 0}))
    assert main(['train', '--config', str(settings), '--output', str(folder), '--experiment', 'run']) == 0
    return folder / 'run'


class Hostile:
    def __reduce__(self) -> Any:
        return print, ('executed',)


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, 'state_dict': {k: change(v) for k, v in content['state_dict'].items()}}


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda content: [content], 'is not of sfsc-timm train'),
        (lambda content: {**content, SECTION: 5}, 'is not of sfsc-timm train'),
        (lambda content: {**content, 'x': Hostile()}, 'could run code'),
        (lambda content: {k: v for k, v in content.items() if k != 'state_dict'}, 'does not hold .*state_dict'),
        (lambda content: {**content, SECTION: {**content[SECTION], 'loop': {}}}, 'does not hold what it takes'),
        (lambda content: {**content, SECTION: {**content[SECTION], 'generators': 5}}, 'does not hold what it takes'),
        (weights(lambda v: v[:1] if v.dim() else v), 'does not hold .*size mismatch'),
        (weights(lambda v: v.int()), 'does not hold .*weights are floating'),
        (weights(lambda v: v * torch.nan if v.is_floating_point() else v), 'does not hold .*is not finite'),
    ],
)
def test_damaged_states_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Any], Any], message: str
) -> None:
    for name in ('args.yaml', 'last.pth.tar'):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    content = torch.load(tmp_path / 'last.pth.tar', weights_only=False)
    torch.save(change(content), tmp_path / 'last.pth.tar')
    assert main(['train', '--resume', str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert 'executed' not in captured.out + captured.err
    (line,) = [line for line in captured.err.splitlines() if 'last.pth.tar' in line]
    assert re.search(message, line), line
