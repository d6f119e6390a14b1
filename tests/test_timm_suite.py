"""timm's own tests, from the source distribution of the installed release, on one model of each family.

They need that distribution: the environment variable SFSC_TIMM_SDIST names a folder with `tests/test_models.py`, else
pip downloads it (kept in pytest's cache), else the test is skipped with the reason. SFSC_TIMM_MODELS names other
models, e.g. 'sfsc_*' for all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import timm

from benchmarks.zoo.suite import timm_suite

_SMALLEST = (
    'sfsc_resnet18d,sfsc_efficientnet_b0,sfsc_convnext_atto,sfsc_mobilenetv3_small_100,sfsc_vit_tiny_patch16_224'
)
MODELS = os.environ.get('SFSC_TIMM_MODELS', _SMALLEST)
# What timm runs for each of ours: forward, backward, default_cfgs, forward_features, torchscript, fx, ...
FEWEST_PER_MODEL = 8


@pytest.fixture(scope='module')
def timm_tests(request: pytest.FixtureRequest) -> Path:
    """timm's tests/test_models.py."""
    if given := os.environ.get('SFSC_TIMM_SDIST'):
        found = Path(given) / 'tests' / 'test_models.py'
        if not found.is_file():
            pytest.fail(f'SFSC_TIMM_SDIST must be a folder that holds tests/test_models.py, got {given}')
        return found
    name = f'timm-{timm.__version__}'
    folder = Path(request.config.cache.mkdir('timm_sdist'))  # type: ignore[union-attr]
    if not (folder / name / 'tests' / 'test_models.py').is_file():
        _download(folder, name)
    return folder / name / 'tests' / 'test_models.py'


def _download(folder: Path, name: str) -> None:
    command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', ':all:', '--no-build-isolation']
    done = subprocess.run(
        [*command, '--dest', str(folder), f'timm=={timm.__version__}'], capture_output=True, text=True, check=False
    )
    archive = folder / f'{name}.tar.gz'
    if not archive.is_file():
        lines = done.stderr.strip().splitlines() or ['no message']
        pytest.skip(f"pip could not download timm's source distribution: {lines[-1]}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter='data')


@pytest.mark.slow
def test_timms_own_tests_pass(timm_tests: Path, tmp_path: Path) -> None:
    command, environment = timm_suite(MODELS, timm_tests, '-rs')
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    assert done.returncode == 0, f'{summary}\n{done.stdout[-6000:]}'
    counts = {outcome: int(n) for n, outcome in re.findall(r'(\d+) (passed|failed|error|skipped)', summary)}
    assert counts.get('passed', 0) >= FEWEST_PER_MODEL * len(MODELS.split(',')), summary
    # timm leaves out of some tests what is made for large images alone, its own transformers too.
    skips = re.findall(r'^SKIPPED .*$', done.stdout, re.MULTILINE)
    assert all('Fixed input size model > limit' in skip for skip in skips), skips
    assert set(counts) <= {'passed', 'skipped'}, summary
