"""Pictures of an evaluation and of a training run; each function writes one file and returns its path."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure import INK, MARKERS, MUTED, SERIES, WRONG, new_figure, save, set_heading, signed, style_axes
from .matrix import CompatibilityMatrix
from .tables import si_number, summary, update_gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_matrix(matrix: CompatibilityMatrix, path: str | Path, *, title: str | None = None, k: int = 1) -> Path:
    """Heat map of mAP, with rank-k below, the gain over the weaker self-test in every cross-test, and the update gain.

    Self-tests are framed. Where a cross-test does not beat the weaker self-test (not compatible), its gain stands in
    a badge with a cross. The update gain (U) stands where the query's model is smaller than the gallery's.

    Args:
        matrix: What to draw.
        path: Where to, .png or .pdf.
        title: Heading; None gives a neutral one.
        k: The CMC rank shown beside mAP.

    Returns:
        The path.
    """
    if k not in matrix.cmc:
        raise ValueError(f'k must be one of the computed ranks {sorted(matrix.cmc)}, got {k}.')
    size = len(matrix.widths)
    figure = new_figure(2.9 + 1.22 * size, 1.9 + 0.98 * size)
    axes = figure.add_subplot()
    low, high = float(matrix.mAP.min()), float(matrix.mAP.max())
    colours = _colours()
    for row in range(size):
        for column in range(size):
            share = (matrix.mAP[row, column] - low) / max(high - low, 1e-9)
            _cell(axes, matrix, row, column, k, colours(0.08 + 0.84 * share), INK if share < 0.62 else 'white')
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect='auto')
    axes.tick_params(length=0, labelsize=9.5, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    names = [f'{name}  ·  {width:g}' for name, width in zip(matrix.names, matrix.widths, strict=True)]
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), [_row_label(matrix, i) for i in range(size)])
    axes.xaxis.set_label_position('top')
    axes.set_xlabel('gallery embedded at', color=MUTED, fontsize=9, labelpad=6)
    axes.set_ylabel('query embedded at', color=MUTED, fontsize=9, labelpad=6)
    axes.spines[:].set_visible(False)
    set_heading(figure, title or 'Cross-width retrieval', textwrap.fill(summary(matrix, k), 24 + 17 * size))
    return save(figure, path)


def plot_accuracy_cost(matrix: CompatibilityMatrix, path: str | Path, *, title: str | None = None) -> Path:
    """MAP against the multiply-adds of the query: with a gallery of the query's own width, and with the widest one.

    The area between the two lines is what a cheap query gains from a gallery embedded by the big model; each width's
    gain is written above it, in mAP and as update gain (U).

    Args:
        matrix: What to draw; it must know its `macs`.
        path: Where to, .png or .pdf.
        title: Heading; None gives a neutral one.

    Returns:
        The path.
    """
    if matrix.macs is None:
        raise ValueError('matrix.macs is None: pass macs={width: multiply-adds} to compatibility_matrix.')
    figure = new_figure(7.2, 4.6)
    axes = figure.add_subplot()
    cost, own, widest = np.array(matrix.macs, dtype=float), matrix.self_tests, matrix.mAP[:, -1]
    axes.fill_between(cost, own, widest, color=SERIES[2], alpha=0.13, linewidth=0)
    axes.plot(cost, widest, color=SERIES[2], marker='s', markersize=7, label=f'gallery at {matrix.names[-1]} (widest)')
    axes.plot(cost, own, color=SERIES[0], marker='o', markersize=7, label="gallery at the query's own width")
    for i, (name, width) in enumerate(zip(matrix.names, matrix.widths, strict=True)):
        _label(axes, f'{name} · {width:g}', (cost[i], min(own[i], widest[i])), (9, -15), 'left', INK)
        if i < len(own) - 1:
            gain = f'{signed(widest[i] - own[i])}\n{_update(matrix, i, len(own) - 1)}'
            _label(axes, gain, (cost[i], max(own[i], widest[i])), (-7, 7), 'right', SERIES[2])
    axes.margins(x=0.14, y=0.18)
    style_axes(axes, title or 'Accuracy against the cost of a query', 'multiply-adds per query image', 'mAP (%)')
    axes.xaxis.set_major_formatter(lambda value, _: si_number(value))
    axes.set_xlim(left=-0.04 * cost.max())
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc='lower right')
    return save(figure, path)


def plot_training(
    rows: Sequence[Mapping[str, Any]] | str | Path, path: str | Path, *, title: str | None = None
) -> Path:
    """Curves of a training run: losses, uncertainty, conflicts, gradient norms, mAP, update gain, as far as logged.

    Args:
        rows: One mapping per log line, or a CSV file of them. The x axis is `step` or `epoch` (else the row number);
            a panel shows the columns that are, or begin with, its name and an underscore: `loss`, `loss_0.25`,
            `uncertainty_1.0`, `conflict_rate`, `mAP_0.25`, ... Empty cells are skipped.
        path: Where to, .png or .pdf.
        title: Heading; None gives a neutral one.

    Returns:
        The path.
    """
    rows = _read_rows(rows)
    panels = {
        'loss': 'Loss',
        'uncertainty': 'Mean uncertainty',
        'conflict_rate': 'Conflict rate',
        'gradnorm': 'Gradient norm',
        'mAP': 'mAP (%)',
        'update_gain': 'Update gain',
    }
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = {key: found for key in panels if (found := [n for n in names if n == key or n.startswith(f'{key}_')])}
    if not shown:
        raise ValueError(f'rows have no column to draw: expected names such as {list(panels)}, found {names}.')
    x_name = next((name for name in ('step', 'epoch') if name in names), None)
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(5.2 * columns, 0.5 + 3.0 * lines)
    widths = sorted({_suffix(n, key) for key, found in shown.items() for n in found} - {''})
    for i, (key, found) in enumerate(shown.items()):
        axes = figure.add_subplot(lines, columns, i + 1)
        for name in found:
            points = [(_number(row.get(x_name)) if x_name else j, _number(row.get(name))) for j, row in enumerate(rows)]
            xy = np.array([point for point in points if None not in point], dtype=float).reshape(-1, 2)
            index = widths.index(_suffix(name, key)) if _suffix(name, key) else None
            _curve(axes, xy[:, 0], xy[:, 1], _suffix(name, key) or 'all', index)
        style_axes(axes, panels[key], x_name or 'log line', '')
        if len(found) > 1:
            axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, ncols=2)
    set_heading(figure, title or 'Training')
    return save(figure, path)


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list('sfsc', ['#f4f8fb', '#bcd9ea', '#5ba3cf', '#1f6fae', '#0b3c6f'])


def _cell(axes: Axes, matrix: CompatibilityMatrix, row: int, column: int, k: int, colour: Any, ink: str) -> None:
    from matplotlib.patches import Rectangle

    own = row == column
    axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, edgecolor='none'))
    if own:
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=ink, linewidth=1.6))
    place: dict[str, Any] = {'ha': 'center', 'va': 'center', 'color': ink}
    axes.text(column, row - 0.25, f'{matrix.mAP[row, column]:.1f}', fontsize=14, fontweight='bold', **place)
    axes.text(column, row + 0.01, f'rank-{k} {matrix.cmc[k][row, column]:.1f}', fontsize=8, **place)
    if row < column:
        axes.text(column, row + 0.38, _update(matrix, row, column), fontsize=8, **place)
    if own:
        axes.text(column, row + 0.2, 'self-test', fontsize=8, **place)
    elif matrix.compatible[row, column]:
        axes.text(column, row + 0.2, signed(matrix.gain[row, column]), fontsize=8.5, fontweight='bold', **place)
    else:
        badge = {'boxstyle': 'round,pad=0.2', 'facecolor': WRONG, 'edgecolor': 'none'}
        text = f'✗ {signed(matrix.gain[row, column])}'
        axes.text(column, row + 0.2, text, fontsize=8.5, fontweight='bold', bbox=badge, **{**place, 'color': 'white'})


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, index: int | None) -> None:
    """One curve; a long one is drawn faintly, with its running mean on top."""
    colour = INK if index is None else SERIES[index % len(SERIES)]
    if len(x) >= 100:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.25)
        window = len(x) // 25
        x, y = (np.convolve(values, np.full(window, 1 / window), 'valid') for values in (x, y))
    marker = None if index is None else MARKERS[index % len(MARKERS)]
    axes.plot(
        x, y, color=colour, marker=marker, markersize=4.5, markevery=max(1, len(x) // 8), linewidth=1.6, label=label
    )


def _label(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], align: str, colour: str
) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground='white')]
    axes.annotate(
        text,
        point,
        offset,
        textcoords='offset points',
        ha=align,
        fontsize=9,
        fontweight='bold',
        color=colour,
        path_effects=halo,
    )


def _update(matrix: CompatibilityMatrix, row: int, column: int) -> str:
    return f'U {update_gain(matrix, row, column)}'.replace('-0', '\N{MINUS SIGN}0')


def _row_label(matrix: CompatibilityMatrix, row: int) -> str:
    lines = [f'{matrix.names[row]}  ·  {matrix.widths[row]:g}']
    if matrix.params is not None:
        lines.append(f'{si_number(matrix.params[row])} params')
    if matrix.macs is not None:
        lines.append(f'{si_number(matrix.macs[row])} MACs')
    return '\n'.join(lines)


def _read_rows(rows: Sequence[Mapping[str, Any]] | str | Path) -> Sequence[Mapping[str, Any]]:
    if isinstance(rows, str | Path):
        if not Path(rows).is_file():
            raise FileNotFoundError(f'no training log at {str(rows)!r}; give the CSV file that training wrote.')
        with Path(rows).open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError('rows is empty: there is nothing to draw.')
    return rows


def _number(value: Any) -> float | None:
    return None if value is None or value == '' else float(value)


def _suffix(name: str, key: str) -> str:
    return name[len(key) + 1 :]
