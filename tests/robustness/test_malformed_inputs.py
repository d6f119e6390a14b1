"""More than 500 malformed inputs: no traceback, none that changes a result in silence, none that takes ten seconds.

Most run in this process through the command line's `main`; a sample runs as real commands. The table at the end of the
run counts what became of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import checkpoints, data_files, flags, galleries, images, resume, settings
from .case import BAD, Case, judge
from .conftest import PROPERTY
from .materials import Materials

OPEN: frozenset[str] = frozenset()
"""Cases that are known to end badly, as 'group / name': each must, so that a mended one is taken off the list."""

MODULES = (settings, data_files, images, checkpoints, galleries, flags, resume)
GENERATORS = [generator for module in MODULES for generator in module.GENERATORS]


@pytest.fixture(scope='module')
def cases(materials: Materials) -> dict[str, list[Case]]:
    """All cases by the name of their generator."""
    return {generator.__name__: list(generator(materials)) for generator in GENERATORS}


@pytest.mark.slow
@pytest.mark.parametrize('name', [generator.__name__ for generator in GENERATORS])
def test_malformed_inputs_are_refused_or_change_nothing(
    name: str,
    cases: dict[str, list[Case]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = [judge(case, tmp_path / f'case{number}') for number, case in enumerate(cases[name])]
    record_property(PROPERTY, json.dumps([(outcome.case.group, outcome.kind) for outcome in outcomes]))
    bad = {f'{o.case.group} / {o.case.name}': o for o in outcomes if o.kind in BAD}
    expected = {f'{o.case.group} / {o.case.name}' for o in outcomes} & OPEN
    wrong = [str(bad[one]) for one in bad.keys() - expected] + [f'mended: {one}' for one in expected - bad.keys()]
    assert not wrong, f'{len(wrong)} of {len(outcomes)} cases:\n' + '\n'.join(sorted(wrong))


@pytest.mark.slow
def test_there_are_enough(cases: dict[str, list[Case]]) -> None:
    assert sum(map(len, cases.values())) >= 500


SAMPLE = (
    'settings: files / an alias bomb',
    'checkpoints: .pth.tar / a hostile pickle',
    'galleries: shards / a path too many',
    'images / JPEG cut to 50%, as a query',
)


@pytest.mark.slow
def test_real_commands_do_the_same(cases: dict[str, list[Case]], tmp_path: Path) -> None:
    named = {f'{case.group} / {case.name}': case for several in cases.values() for case in several}
    running = []
    for number, name in enumerate(SAMPLE):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, '-m', 'sfsc_timm', *named[name].prepare(folder)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for name, process in zip(SAMPLE, running, strict=True):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 1, (name, out, err)
        assert 'Traceback' not in err, (name, err)
        assert 'executed' not in out + err, name
        assert err.startswith('sfsc-timm: '), (name, err)
