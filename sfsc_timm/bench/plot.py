"""Accuracy against latency, for every form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation import CompatibilityMatrix
from ..evaluation.figure import INK, MARKERS, SERIES, new_figure, save, style_axes
from .measure import Timing

__all__ = ['plot_accuracy_latency']


def plot_accuracy_latency(
    timings: Sequence[Timing], matrix: CompatibilityMatrix | None, path: str | Path, machine: str
) -> Path:
    """Draws each form as a line over the widths, for the smallest batch.

    Args:
        timings: Of `measure_width`.
        matrix: mAP of the widths in their own galleries, measured in PyTorch; None draws the width itself.
        path: Where to, .png or .pdf.
        machine: What it was measured on.

    Returns:
        The path.
    """
    batch = min(timing.batch for timing in timings)
    accuracy = {} if matrix is None else dict(zip(matrix.widths, map(float, matrix.self_tests), strict=True))
    shown = [t for t in timings if t.batch == batch and (matrix is None or t.width in accuracy)]
    figure = new_figure(7.2, 4.6)
    axes = figure.add_subplot()
    for place, form in enumerate(dict.fromkeys(timing.form for timing in shown)):
        line = [timing for timing in shown if timing.form == form]
        heights = [accuracy.get(timing.width, timing.width) for timing in line]
        axes.plot(
            [timing.milliseconds for timing in line], heights, color=SERIES[place % len(SERIES)],
            marker=MARKERS[place % len(MARKERS)], label=form,
        )  # fmt: skip
    for timing in shown:
        if timing.form == shown[0].form:
            point = timing.milliseconds, accuracy.get(timing.width, timing.width)
            axes.annotate(f'{timing.width:g}', point, (6, -12), textcoords='offset points', fontsize=9, color=INK)
    axes.set_xscale('log')
    height = 'width' if matrix is None else f'mAP (%) in the own gallery, {matrix.info.get("data", "unnamed data")}'
    images = 'an image' if batch == 1 else f'{batch} images'
    style_axes(axes, 'Accuracy against latency', f'milliseconds for {images}, {machine}', height)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc='lower right')
    return save(figure, path)
