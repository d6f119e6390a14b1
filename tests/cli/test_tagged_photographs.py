"""Photographs that a camera stored on their side, with a tag, are searched as they look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import DATA_CONFIG, tiny
from PIL import Image

from sfsc_timm.checkpoints import save_width
from sfsc_timm.cli.main import main


@pytest.mark.parametrize('tagged', ['queries', 'gallery'])
def test_the_right_photograph_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], tagged: str) -> None:
    checkpoint = save_width(tiny(widths=(0.5, 1.0)), 1.0, tmp_path / 'w1', data_config=DATA_CONFIG)
    exif = Image.Exif()
    exif[0x0112] = 6
    random = np.random.default_rng(0)
    for number in range(12):
        scene = np.kron(random.integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        upright = np.ascontiguousarray(scene)
        aside = np.ascontiguousarray(np.rot90(scene))
        for folder in ('queries', 'gallery'):
            (tmp_path / folder).mkdir(exist_ok=True)
            stored, options = (aside, {'exif': exif}) if folder == tagged else (upright, {})
            Image.fromarray(stored).save(tmp_path / folder / f'{number:02d}.png', **options)
    model = ['--checkpoint', str(checkpoint), '--device', 'cpu']
    assert main(['index', str(tmp_path / 'gallery'), '--output', str(tmp_path / 'index'), *model]) == 0
    capsys.readouterr()
    assert main(['search', str(tmp_path / 'index'), str(tmp_path / 'queries'), '-k', '1', '--json', *model]) == 0
    for result in json.loads(capsys.readouterr().out)['results']:
        (match,) = result['matches']
        assert Path(match['path']).name == Path(result['query']).name
        assert match['score'] == pytest.approx(1, abs=1e-5)
