"""What the commands print: tables and progress by rich, errors on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from ..evaluation import CompatibilityMatrix

__all__ = ['cell', 'console', 'fail', 'matrix_table', 'new_table', 'progress_bar', 'visible']


def console(*, stderr: bool = False) -> Console:
    """The terminal; what is printed is taken literally, since names of files and data may hold any character.

    Text goes through `visible`.

    Args:
        stderr: Standard error in place of standard output.

    Raises:
        ImportError: If rich is not installed; the message names the extra.
    """
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("the command line needs rich: pip install 'sfsc-timm[cli]'") from None

    class Literal(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)

    return Literal(stderr=stderr, highlight=False, markup=False, emoji=False)


def visible(text: str, keep: str = '\n\t') -> str:
    r"""Text in which what a terminal would obey, or could not write, is spelled out: `\x1b`, `\udcff`, `\u202e`.

    Args:
        text: Any text, names of files that are no UTF-8 among them.
        keep: Control characters that stay.
    """
    return ''.join(
        c if c.isprintable() or c in keep else c.encode('unicode_escape', 'surrogatepass').decode('ascii') for c in text
    )


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
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('to go'),
        TimeRemainingColumn(),
        console=terminal,
    )


def new_table(title: str, *columns: str, left: tuple[str, ...] = ()) -> Table:
    """An empty table.

    Args:
        title: Stands above it.
        *columns: Heads; one of several lines stands in several lines.
        left: Those columns whose cells are aligned to the left, as words are.
    """
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in columns:
        made.add_column(name, justify='left' if name in left else 'right', no_wrap=True)
    return made


def cell(text: str, style: str = '') -> Text:
    """A cell in a style of rich, such as 'red'."""
    from rich.text import Text

    return Text(text, style)


def matrix_table(matrix: CompatibilityMatrix) -> Table:
    """The compatibility matrix as a table: mAP and rank-1 by query (rows) and gallery (columns), and costs."""
    from ..evaluation import si_number

    heads = (f'{name}\n{width:g}' for name, width in zip(matrix.names, matrix.widths, strict=True))
    made = new_table('M(query width, gallery width): mAP/rank-1 in percent', 'query', *heads)
    costs = [(n, c) for n, c in (('params', matrix.params), ('MACs', matrix.macs)) if c is not None]
    for name, _ in costs:
        made.add_column(name, justify='right', style='cyan', no_wrap=True)
    for i, name in enumerate(matrix.names):
        cells = [
            cell(
                f'{matrix.mAP[i, j]:.1f}/{matrix.cmc[1][i, j]:.1f}',
                'bold' if i == j else '' if matrix.compatible[i, j] else 'red',
            )
            for j in range(len(matrix.widths))
        ]
        made.add_row(f'{name}  {matrix.widths[i]:g}', *cells, *(si_number(cost[i]) for _, cost in costs))
    return made


def fail(message: str, status: int = 1) -> int:
    """Prints an error and returns the exit status."""
    sys.stderr.write(f'sfsc-timm: {visible(message)}\n')
    return status
