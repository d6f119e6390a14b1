"""Sound inputs for all cases, and the table of what became of them at the end of the run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from .case import BAD, GOOD
from .materials import Materials

PROPERTY = 'robustness'


@pytest.fixture(scope='session')
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    """Sound inputs."""
    torch.set_num_threads(1)
    return Materials(Path(tmp_path_factory.mktemp('materials')))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many cases of each group ended how."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, 'user_properties', ()):
                if name == PROPERTY and getattr(report, 'when', '') == 'call':
                    for group, kind in json.loads(value):
                        table[group][kind] += 1
    if not table:
        return
    kinds = (*GOOD, *BAD)
    rows = [(group, *(str(counts[kind] or '') for kind in kinds)) for group, counts in sorted(table.items())]
    sums = [str(sum(counts[kind] for counts in table.values())) for kind in kinds]
    rows = [('malformed inputs', *kinds), *rows, ('all', *sums)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section('robustness')
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        terminalreporter.write_line('  '.join(cells))
