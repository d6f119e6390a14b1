"""The reader of preprocessing.json that the docs show, by NumPy and Pillow alone, equals our own preparation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import save_whole, tiny
from helpers.readme import ROOT, blocks
from PIL import Image

from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.data import load_image
from sfsc_timm.export import write_preprocessing

README = ROOT / 'sfsc_timm' / 'export' / 'README.md'
SIZES = ((40, 61), (97, 50), (33, 33), (20, 25), (64, 64))


@pytest.fixture(scope='module')
def prepare() -> Any:
    (block,) = (block for block in blocks(README, 'python') if 'def prepare' in block.text)
    names: dict[str, Any] = {}
    exec(block.text, names)
    assert block.text[block.text.index('def ') :].count('\n') <= 30
    imports = [line for line in block.text.splitlines() if line.startswith(('import', 'from'))]
    assert {line.split()[1] for line in imports} == {'json', 'numpy', 'PIL'}
    return names['prepare']


def paint_all(folder: Path) -> list[Path]:
    """Images of several sizes, orientations and kinds."""
    generator, files = np.random.default_rng(0), []
    for place, (width, height) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 4), np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        for kind in ('RGB', 'RGBA', 'L', 'P'):
            files.append(folder / f'{place}{kind}.png')
            image.convert(kind).save(files[-1])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(folder / f'{orientation}.jpg')
        image.convert('RGB').resize((48, 70)).save(files[-1], exif=exif)
    return files


@pytest.mark.parametrize('input_size', [(3, 32, 32), (3, 40, 24), (1, 24, 40)], ids=str)
def test_equal_to_ours(prepare: Any, input_size: tuple[int, int, int], tmp_path: Path) -> None:
    checkpoint, files = load_checkpoint_model(save_whole(tiny(), tmp_path / 'whole')), paint_all(tmp_path)
    for mode in ('center', 'squash', 'border'):
        for share, interpolation in ((0.8, 'bicubic'), (1.0, 'bilinear'), (1.3, 'lanczos')):
            asked = {'crop_mode': mode, 'crop_pct': share, 'interpolation': interpolation}
            preprocessing = checkpoint.preprocessing.changed(input_size=input_size, **asked)
            sidecar = write_preprocessing(
                tmp_path / 'preprocessing.json', replace(checkpoint, preprocessing=preprocessing), 0.5
            )
            transform = preprocessing.transform()
            for file in files:
                expected = transform(load_image(file, preprocessing.image_mode)).numpy()
                found = prepare(file, sidecar)
                assert found.shape == (1, *input_size)
                assert np.abs(found[0] - expected).max() <= 1e-6, (file.name, asked)


def test_what_the_sidecar_says(tmp_path: Path) -> None:
    checkpoint = load_checkpoint_model(save_whole(tiny(), tmp_path / 'whole'))
    said = json.loads(write_preprocessing(tmp_path / 'p.json', checkpoint, 0.5).read_text())
    assert said['decoding']['orientation'] == 'EXIF'
    assert '0x0112' in said['rounding']['orientation']
    assert said['input']['shape'] == ['batch', 3, 32, 32]
    said = json.loads(write_preprocessing(tmp_path / 'p.json', checkpoint, 0.5, dynamic_size=True).read_text())
    assert said['input']['shape'] == ['batch', 3, 'height', 'width']
