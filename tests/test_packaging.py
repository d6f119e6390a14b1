"""What is built holds what it should, the top-level weights folder and the typing marker included."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of a clean copy of the tree."""
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('dist')
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip('not a git checkout')
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            copy = source / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_wheel(built: Path) -> None:
    (wheel,) = built.glob('*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {'sfsc_timm/py.typed', 'sfsc_timm/weights/__init__.py', 'sfsc_timm/models/slim_resnet.py'} <= names
    tops = {name.split('/')[0] for name in names}
    assert tops == {'sfsc_timm', next(top for top in tops if top.endswith('.dist-info'))}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / 'sfsc_timm').rglob('*.py')}
    assert modules <= names, f'not in the wheel: {sorted(modules - names)}'
    weights = {f'sfsc_timm/weights/{path.name}' for path in (ROOT / 'weights').iterdir() if path.is_file()}
    assert weights <= names, f'not in the wheel: {sorted(weights - names)}'
    assert any(name.endswith('.safetensors') for name in weights)
    assert 'sfsc_timm/slim/README.md' in names
    page = {f'sfsc_timm/demo/page/{path.name}' for path in (ROOT / 'sfsc_timm/demo/page').iterdir()}
    assert page <= names, f'not in the wheel: {sorted(page - names)}'


def test_metadata(built: Path) -> None:
    """The page of the package is the README."""
    (wheel,) = built.glob('*.whl')
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
    metadata = message_from_bytes(archive.read(name))
    assert metadata['Name'] == 'sfsc-timm'
    assert metadata['Description-Content-Type'].startswith('text/markdown')
    page = metadata.get_payload(decode=True)
    assert isinstance(page, bytes)
    assert page.decode().strip() == (ROOT / 'README.md').read_text(encoding='utf-8').strip()
    assert metadata['License'] == 'Apache-2.0'


def test_sdist(built: Path) -> None:
    (sdist,) = built.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        names = {name.split('/', 1)[1] for name in archive.getnames() if '/' in name}
    assert {'weights/__init__.py', 'sfsc_timm/py.typed', 'LICENSE', 'pyproject.toml', 'setup.cfg'} <= names
    assert {f'weights/{path.name}' for path in (ROOT / 'weights').iterdir() if path.is_file()} <= names


def test_the_core_needs_little() -> None:
    """Everything else is an extra."""
    setup = ConfigParser()
    setup.read(ROOT / 'setup.cfg', encoding='utf-8')
    names = {re.split('[<>=]', line)[0] for line in setup['options']['install_requires'].split()}
    assert names == {'timm', 'torch', 'huggingface_hub', 'safetensors', 'numpy'}
    for file in (ROOT / 'sfsc_timm').rglob('*.py'):
        assert not re.search(r'^\s*(from|import) tqdm', file.read_text(encoding='utf-8'), re.MULTILINE), file


def test_weights_are_found_where_installed() -> None:
    assert files('sfsc_timm.weights').joinpath('__init__.py').is_file()
