"""The compatibility matrix as text."""

from __future__ import annotations

import math

from .matrix import CompatibilityMatrix
from .sizes import size_cells


def markdown_table(matrix: CompatibilityMatrix, k: int = 1) -> str:
    """Format the matrix as a Markdown table that also reads well as plain text.

    Each cell is `mAP / rank-k` in percent; a cross-test that does not beat the weaker self-test ends in `✗`.

    Args:
        matrix: What to show.
        k: The CMC rank shown beside mAP.

    Returns:
        The table and one line of summary, without a final newline.
    """
    if k not in matrix.cmc:
        raise ValueError(f'k must be one of the computed ranks {sorted(matrix.cmc)}, got {k}.')
    labels = _labels(matrix)
    header = ['query \\ gallery', *labels]
    rows = [
        [
            label,
            *(
                f'{matrix.mAP[i, j]:.2f} / {matrix.cmc[k][i, j]:.2f}' + ('' if matrix.compatible[i, j] else ' ✗')
                for j in range(len(labels))
            ),
        ]
        for i, label in enumerate(labels)
    ]
    costs = {
        'params': matrix.params and [si_number(value) for value in matrix.params],
        'MACs': matrix.macs and [si_number(value) for value in matrix.macs],
    }
    for name, values in costs.items():
        if values:
            header.append(name)
            rows = [[*row, value] for row, value in zip(rows, values, strict=True)]
    return f'{_align([header, *rows])}\n\n{summary(matrix, k)}'


def update_gain_table(matrix: CompatibilityMatrix) -> str:
    """Format the update gains as a Markdown table: smaller query models in rows, bigger gallery models in columns.

    `-` stands where the gallery's model is less than 1 mAP better than the query's.

    Args:
        matrix: What to show; of at least two sub-models.
    """
    labels = _labels(matrix)
    rows = [
        [labels[i], *(update_gain(matrix, i, j) if j > i else '' for j in range(1, len(labels)))]
        for i in range(len(labels) - 1)
    ]
    return _align([['query \\ gallery', *labels[1:]], *rows])


def size_table(matrix: CompatibilityMatrix) -> str:
    """Format what each width (row) is worth at each embedding size (column) as a Markdown table, see `size_cells`.

    Args:
        matrix: What to show; of several sizes.
    """
    heads, rows = size_cells(matrix)
    return _align([heads, *rows])


def update_gain(matrix: CompatibilityMatrix, row: int | None = None, column: int | None = None) -> str:
    """The update gain of a cell, or the pooled one, as tables show it: '0.47', or '-' where it means nothing."""
    value = matrix.update_gain if row is None else float(matrix.update_gains[row, column])
    return '-' if math.isnan(value) else f'{round(value, 2) + 0.0:.2f}'  # no -0.00


def summary(matrix: CompatibilityMatrix, k: int = 1) -> str:
    """One line: the cells' unit, diagonal and cross means, how many cross-tests are compatible, the update gain."""
    line = f'mAP / rank-{k} in percent; diagonal mean {matrix.diagonal_mean:.2f} mAP'
    if (size := len(matrix.widths)) == 1:
        return line + '.'
    return (
        f'{line}, cross mean {matrix.cross_mean:.2f}; {matrix.num_compatible} of {size * (size - 1)} cross-tests '
        f'beat the weaker self-test; update gain {update_gain(matrix)}.'
    )


def si_number(value: float) -> str:
    """Three significant digits with a unit prefix: 4120000000 is '4.12G'."""
    prefixes = ['', 'k', 'M', 'G']
    while abs(value) >= 999.5 and len(prefixes) > 1:
        value /= 1000
        del prefixes[0]
    return f'{value:.3g}{prefixes[0]}'


def _labels(matrix: CompatibilityMatrix) -> list[str]:
    return [f'{name} ({width:g})' for name, width in zip(matrix.names, matrix.widths, strict=True)]


def _align(rows: list[list[str]]) -> str:
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['| ' + ' | '.join(text.rjust(size) for text, size in zip(row, sizes, strict=True)) + ' |' for row in rows]
    rule = '|' + '|'.join('-' * (size + 1) + ':' for size in sizes) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])
