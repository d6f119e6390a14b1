"""Both re-implementations of the transform, the server's in NumPy and the page's in JavaScript, against timm's own."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from sfsc_timm.data import Preprocessing
from sfsc_timm.demo import PAGE
from sfsc_timm.demo.server.preparing import prepare

SIZES = ((64, 64), (37, 91), (91, 37), (500, 20), (7, 5), (65, 64), (240, 333), (31, 32))
WAYS = {
    'center': {},
    'bilinear': {'interpolation': 'bilinear', 'crop_pct': 0.875},
    'lanczos': {'interpolation': 'lanczos', 'input_size': (3, 33, 32)},
    'hamming': {'interpolation': 'hamming', 'crop_pct': 0.9},
    'box': {'interpolation': 'box'},
    'nearest': {'interpolation': 'nearest'},
    'squash': {'crop_mode': 'squash', 'input_size': (3, 48, 24)},
    'border': {'crop_mode': 'border', 'crop_pct': 0.95},
    'padded': {'crop_pct': 1.3},
    'grey': {'input_size': (1, 32, 32), 'mean': (0.5,), 'std': (0.25,)},
}
# Answers each line of JSON by one: the pixels of a file, prepared in bands of a few rows.
PROGRAM = """
import { readFileSync } from 'node:fs';
import { prepare } from '%s';
const answers = JSON.parse(readFileSync(0)).map(({ width, height, file, preprocessing }) => {
  const all = new Uint8ClampedArray(readFileSync(file));
  const picture = { width, height, *bands() {
    for (let first = 0; first < height; first += 7) {
      const rows = Math.min(7, height - first);
      yield { first, rows, pixels: all.subarray(4 * width * first, 4 * width * (first + rows)) };
    }
  } };
  return Array.from(prepare(picture, preprocessing));
});
console.log(JSON.stringify(answers));
"""


def cases():
    """Each way with each size: its preprocessing, the content of its preprocessing.json, and an image."""
    random = np.random.default_rng(0)
    for name, changes in WAYS.items():
        preprocessing = Preprocessing((3, 32, 32), (0.48, 0.45, 0.41), (0.23, 0.22, 0.225)).changed(**changes)
        for width, height in SIZES:
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            yield f'{name} {width} x {height}', preprocessing, Image.fromarray(pixels)


def stated(preprocessing):
    """What preprocessing.json says, as far as it is about the input."""
    return {'input': {'channels': preprocessing.image_mode}, 'steps': preprocessing.steps()}


def takes_columns_first():
    """Whether Pillow resizes as the page does; versions before 13 take rows first always."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (91, 37, 3), np.uint8))
    steps = image.resize((37, 60), Image.Resampling.BICUBIC).resize((32, 60), Image.Resampling.BICUBIC)
    return steps.tobytes() == image.resize((32, 60), Image.Resampling.BICUBIC).tobytes()


def expected(preprocessing, image):
    return preprocessing.transform()(image.convert(preprocessing.image_mode)).numpy()


def test_the_server_prepares_as_timm_does():
    for name, preprocessing, image in cases():
        found = prepare(image.convert(preprocessing.image_mode), stated(preprocessing))
        np.testing.assert_allclose(found[0], expected(preprocessing, image), atol=1e-6, err_msg=name)


def test_the_page_prepares_as_timm_does(tmp_path):
    """Pixel for pixel, but for the last rounding of the normalisation."""
    if not takes_columns_first():
        pytest.skip('this Pillow resizes rows before columns always')
    node = shutil.which('node')
    if node is None:
        pytest.skip('node is not installed')
    for file in PAGE.glob('*.js'):
        shutil.copy(file, tmp_path)
    (tmp_path / 'package.json').write_text('{"type": "module"}')
    asked, wanted = [], []
    for i, (name, preprocessing, image) in enumerate(cases()):
        (tmp_path / f'{i}').write_bytes(image.convert('RGBA').tobytes())
        asked.append({
            'width': image.width, 'height': image.height, 'file': str(tmp_path / f'{i}'),
            'preprocessing': stated(preprocessing),
        })  # fmt: skip
        wanted.append((name, expected(preprocessing, image).ravel()))
    (tmp_path / 'run.js').write_text(PROGRAM % './prepare.js')
    done = subprocess.run(
        [node, str(tmp_path / 'run.js')], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (name, values), found in zip(wanted, json.loads(done.stdout), strict=True):
        np.testing.assert_allclose(np.float32(found), values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'AVIF'])
def test_sizes_are_told_from_headers(tmp_path, kind):
    """Before a picture is decoded."""
    node = shutil.which('node')
    if node is None:
        pytest.skip('node is not installed')
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (123, 45, 3), np.uint8))
    try:
        image.save(tmp_path / 'picture', kind)
    except (KeyError, OSError):
        pytest.skip(f'this Pillow writes no {kind}')
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\0'
    ways = {'WEBP': [{}, {'lossless': True}, {'exif': exif}], 'JPEG': [{}, {'progressive': True}]}.get(kind, [{}])
    lines = [
        "import { readFileSync } from 'node:fs';",
        "import { dimensions } from './dimensions.js';",
        'const read = (name) => dimensions(new Uint8Array(readFileSync(name)).buffer);',
    ]
    for i, options in enumerate(ways):
        image.save(tmp_path / f'{i}', kind, **options)
        lines.append(f"console.log(JSON.stringify(read('{tmp_path / str(i)}')));")
    (tmp_path / 'cut').write_bytes((tmp_path / '0').read_bytes()[:9])
    lines.append(f"console.log(JSON.stringify(read('{tmp_path / 'cut'}')));")
    (tmp_path / 'package.json').write_text('{"type": "module"}')
    shutil.copy(PAGE / 'dimensions.js', tmp_path)
    (tmp_path / 'run.js').write_text('\n'.join(lines))
    done = subprocess.run([node, str(tmp_path / 'run.js')], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.split()]
    assert found == [[45, 123]] * len(ways) + [None]
