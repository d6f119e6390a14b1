"""Subpackages import each other one way only, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfsc_timm

ROOT = Path(sfsc_timm.__file__).parent

# Whoever stands further down may import from those above, never the other way round.
LEVELS = (
    {'_version', '_files', '_device'},
    {'layers', 'data', 'weights'},
    {'models'},
    {'losses', 'gradients'},
    {'tasks'},
    {'evaluation', 'recipes'},
    {'hub'},
    {'training'},
    {'cli', 'run', 'train_task'},
    {'train'},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(ROOT.rglob('*.py'))


def part_of(file: Path) -> str:
    """Subpackage, or module at the top, that a file belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix('.py')


def imported_parts(file: Path) -> Iterator[str]:
    """Parts of this package that a file imports, anywhere in it."""
    package = ['sfsc_timm', *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{stem}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split('.')
            if parts[0] == 'sfsc_timm' and len(parts) > 1:
                yield parts[1]


def test_every_part_has_its_level() -> None:
    assert {part_of(file) for file in FILES} - {'__init__', '__main__'} <= set(LEVEL)


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file: Path) -> None:
    part = part_of(file)
    if part in ('__init__', '__main__'):
        return
    for other in imported_parts(file):
        assert other == part or LEVEL.get(other, -1) < LEVEL[part], f'{part} must not import {other}'
        assert not (part == 'data' and other != 'data'), 'data stands alone'


def test_metrics_know_no_models() -> None:
    """Whoever has embeddings can use them."""
    for file in (ROOT / 'evaluation').glob('*.py'):
        assert not {'models', 'layers', 'tasks'} & set(imported_parts(file)), file.name


IMPORT = """
import sys
import timm
before = set(sys.modules)
assert not timm.list_models('sfsc_*')
import sfsc_timm
assert 'sfsc_resnet50' in timm.list_models('sfsc_*')
print(*sorted(set(sys.modules) - before))
"""


def test_the_import_registers_the_models_and_is_cheap() -> None:
    """Nothing heavy comes on top of `import timm`; times themselves belong to the benchmarks."""
    done = subprocess.run([sys.executable, '-c', IMPORT], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    extra = done.stdout.split()
    foreign = {name.split('.')[0] for name in extra} - {'sfsc_timm'}
    heavy = {'matplotlib', 'PIL', 'rich', 'sklearn', 'onnx', 'onnxruntime', 'onnxscript', 'scipy', 'pandas', 'faiss'}
    assert not foreign & (heavy | {'fontTools', 'torchjd', 'pytorch_metric_learning', 'torchvision', 'click', 'typer'})
    assert not any(name.startswith(('torch._dynamo', 'torch._inductor', 'torch.onnx')) for name in extra)
    ours = {name.split('.')[1] for name in extra if name.startswith('sfsc_timm.')}
    assert ours == {'_version', 'layers', 'models'}
