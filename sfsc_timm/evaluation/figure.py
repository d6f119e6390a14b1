"""Shared ground of the plots: colours, and figures that never touch pyplot's global state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = '#1b2733', '#66737f', '#dfe4e8', '#ffffff'
# Okabe and Ito's colours: apart for every common kind of colour vision. One per width, narrow to wide.
SERIES = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#f0e442', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
RIGHT, WRONG = '#009e73', '#d55e00'


def new_figure(width: float, height: float) -> Figure:
    """Blank figure of `width` x `height` inches, laid out by the constrained engine."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'sfsc-timm[plots]'") from error
    return Figure(figsize=(width, height), facecolor=PAPER, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))


def set_heading(figure: Figure, title: str, note: str = '') -> None:
    """Title above and note below the plots, at the left edge."""
    figure.suptitle(title, x=0.02, ha='left', color=INK, fontsize=13, fontweight='bold')
    if note:
        figure.supxlabel(note, x=0.02, ha='left', color=MUTED, fontsize=8.5)


def signed(value: float) -> str:
    """One decimal with a sign, the minus a real one: −4.2."""
    return f'{value:+.1f}'.replace('-', '\N{MINUS SIGN}')


def style_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Titles, a light grid, and no box."""
    axes.set_title(title, loc='left', color=INK, fontsize=11, fontweight='bold', pad=10)
    axes.set_xlabel(xlabel, color=MUTED, fontsize=9)
    axes.set_ylabel(ylabel, color=MUTED, fontsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.spines['bottom'].set_color(GRID)


def save(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write a figure in one step: the file is complete or not there, and its bytes depend only on what it shows.

    Args:
        figure: What to draw.
        path: Where to, ending in .png or .pdf.
        dpi: Dots per inch.

    Returns:
        The path.

    Raises:
        ValueError: Another suffix.
        FileNotFoundError: The folder does not exist.
    """
    path = Path(path)
    # Both writers would otherwise record their version or the time.
    metadata = {'.png': {'Software': None}, '.pdf': {'CreationDate': None, 'Producer': None, 'Creator': None}}
    if path.suffix not in metadata:
        raise ValueError(f'path must end in .png or .pdf to say the format, got {str(path)!r}.')
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f'folder {str(path.parent)!r} does not exist, so {path.name} cannot be written; make it.'
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, metadata=metadata[path.suffix])
    return path
