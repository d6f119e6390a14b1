"""Files import each other one way only, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sfsc_timm

ROOT = Path(sfsc_timm.__file__).parent

# Whoever stands further down may import from those above, never the other way round.
LEVELS = (
    {'_version', '_files', '_device', '_moved', '_npm', '_private', '_registry', '_settings', '_yaml'},
    {'slim', 'data', 'weights'},
    {'models'},
    {'losses', 'gradients'},
    {'tasks'},
    {'evaluation', 'recipes'},
    {'retrieval', 'checkpoints'},
    {'export'},
    {'bench', 'hub', 'demo'},
    {'training'},
    {'cli', 'timm_script', 'timm_train'},
    {'train', 'run', 'train_task', 'layers'},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(ROOT.rglob('*.py'))


def part_of(file: Path) -> str:
    """Subpackage, or module at the top, that a file belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix('.py')


@cache
def imported(file: Path) -> tuple[str, ...]:
    """Dotted names inside this package that a file imports, anywhere in it: modules, or names of modules."""
    package = ['sfsc_timm', *file.relative_to(ROOT).parent.parts]
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = '.'.join([*base, *([node.module] if node.module else [])])
            found += [f'{stem}.{alias.name}' for alias in node.names]
    return tuple(name for name in found if name.split('.')[0] == 'sfsc_timm' and '.' in name)


def imported_parts(file: Path) -> Iterator[str]:
    """Parts of this package that a file imports."""
    return (name.split('.')[1] for name in imported(file))


def file_of(name: str) -> Path:
    """The file in which a dotted name is found: the module itself, or that of which it is an attribute."""
    parts = name.split('.')[1:]
    while True:
        stem = ROOT.joinpath(*parts)
        for file in (stem.with_suffix('.py'), stem / '__init__.py'):
            if parts and file.is_file():
                return file
        if not parts:
            return ROOT / '__init__.py'
        parts = parts[:-1]


def test_every_part_has_its_level() -> None:
    assert {part_of(file) for file in FILES} - {'__init__', '__main__'} <= set(LEVEL)


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file: Path) -> None:
    part = part_of(file)
    if part in ('__init__', '__main__'):
        return
    for other in imported_parts(file):
        assert other == part or LEVEL.get(other, -1) < LEVEL[part], f'{part} must not import {other}'
        assert not (part == 'data' and other not in ('data', *LEVELS[0])), 'data stands alone'


def test_files_import_each_other_in_no_circle() -> None:
    """Imports inside of functions and those for types count, too."""
    graph = {file: {file_of(name) for name in imported(file)} - {file} for file in FILES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(' imports '.join(str(file.relative_to(ROOT)) for file in reversed(error.args[1])))


def test_metrics_know_no_models() -> None:
    """Whoever has embeddings can use them."""
    for file in (ROOT / 'evaluation').glob('*.py'):
        assert not {'models', 'slim', 'tasks'} & set(imported_parts(file)), file.name


def test_no_file_is_long() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert not {name: length for name, length in lengths.items() if length > 300}


def private_names(file: Path) -> set[str]:
    """Names of torch and timm with a leading underscore that a file imports or reads from the module itself."""
    tree, found = ast.parse(file.read_text()), set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and (node.module or '').split('.')[0] in ('torch', 'timm')
        ):
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    first = ('torch.', 'timm.', 'nn.')
    return {n for n in found if n.startswith(first) and any(p[0] == '_' != p[:2][-1:] for p in n.split('.')[1:] if p)}


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_private_names_of_torch_and_timm_stand_in_one_file(file: Path) -> None:
    assert file.name == '_private.py' or not private_names(file)


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
    assert ours == {'_private', '_version', 'slim', 'models'}
