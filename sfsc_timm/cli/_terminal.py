"""What the commands print: tables and progress by rich, errors on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..evaluation import CompatibilityMatrix

__all__ = ['console', 'fail', 'matrix_table', 'progress_bar']


def console() -> Console:
    """The terminal.

    Raises:
        ImportError: If rich is not installed; the message names the extra.
    """
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("the command line needs rich: pip install 'sfsc-timm[cli]'") from None
    return Console(highlight=False)


def progress_bar(terminal: Console) -> Progress:
    """A bar with the share done, time passed and time to go."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('to go'),
        TimeRemainingColumn(),
        console=terminal,
    )


def matrix_table(matrix: CompatibilityMatrix) -> Any:
    """The compatibility matrix as a rich table: mAP and rank-1 by query (rows) and gallery (columns), and costs."""
    from rich import box
    from rich.table import Table

    from ..evaluation import si_number

    table = Table(
        title='M(query width, gallery width): mAP/rank-1 in percent',
        title_justify='left',
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column('query', justify='right', no_wrap=True)
    for name, width in zip(matrix.names, matrix.widths, strict=True):
        table.add_column(f'{name}\n{width:g}', justify='right', no_wrap=True)
    costs = [(n, c) for n, c in (('params', matrix.params), ('MACs', matrix.macs)) if c is not None]
    for name, _ in costs:
        table.add_column(name, justify='right', style='cyan', no_wrap=True)
    for i, name in enumerate(matrix.names):
        cells = []
        for j in range(len(matrix.widths)):
            text = f'{matrix.mAP[i, j]:.1f}/{matrix.cmc[1][i, j]:.1f}'
            style = 'bold' if i == j else '' if matrix.compatible[i, j] else 'red'
            cells.append(f'[{style}]{text}[/]' if style else text)
        table.add_row(f'{name}  {matrix.widths[i]:g}', *cells, *(si_number(cost[i]) for _, cost in costs))
    return table


def fail(message: str, status: int = 1) -> int:
    """Prints an error and returns the exit status."""
    sys.stderr.write(f'sfsc-timm: {message}\n')
    return status
