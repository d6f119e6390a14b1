"""Contact sheet: queries with their best matches, right and wrong ones framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data import load_image
from .figure import INK, MUTED, RIGHT, WRONG, new_figure, save, set_heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = str | Path | np.ndarray

# Thumbnails are reduced to this many pixels before drawing, to bound memory.
_THUMBNAIL = 160


@dataclass(frozen=True)
class Match:
    """One picture of a contact sheet.

    Attributes:
        image: A file, or pixels as uint8 of shape `(H, W)` or `(H, W, 3)`.
        correct: Whether it shows the query's identity; None where that is unknown (no frame).
        caption: Short text below, such as the score or the camera.
    """

    image: Picture
    correct: bool | None = None
    caption: str = ''


def plot_contact_sheet(
    queries: Sequence[Match],
    matches: Sequence[Sequence[Match]],
    path: str | Path,
    *,
    title: str = 'Queries and their best matches',
    note: str = '',
) -> Path:
    """Draw one row per query: the query, then its matches from best to worst.

    A right match has a solid green frame and ✓, a wrong one a dashed red-orange frame and ✗, so that colour is not
    the only difference.

    Args:
        queries: The queries (their `correct` is ignored).
        matches: The matches of each query, best first.
        path: Where to, .png or .pdf.
        title: Heading.
        note: Line below, for instance the widths of query and gallery.

    Returns:
        The path.

    Raises:
        ValueError: No queries, a different number of match lists, or arrays that are no uint8 pictures.
        FileNotFoundError: An image file is missing.
    """
    if not queries or len(matches) != len(queries):
        raise ValueError(
            f'matches must hold one list for each query, and there must be a query; got {len(queries)} queries '
            f'and {len(matches)} lists of matches.'
        )
    columns = max(map(len, matches))
    figure = new_figure(0.5 + 1.0 * (columns + 1.25), 0.9 + 1.17 * len(queries))
    axes = figure.add_subplot()
    for row, (query, found) in enumerate(zip(queries, matches, strict=True)):
        _draw(axes, query, 0.0, row * 1.17)
        for column, match in enumerate(found):
            _draw(axes, match, column + 1.25, row * 1.17)
    for left, text in [(0.0, 'query'), *((i + 1.25, f'#{i + 1}') for i in range(columns))]:
        axes.text(left + 0.5, -0.06, text, ha='center', va='bottom', fontsize=8.5, color=MUTED)
    axes.axvline(1.125, color=MUTED, linewidth=0.8, alpha=0.5)
    axes.set(xlim=(0, columns + 1.25), ylim=(1.17 * len(queries), -0.2), aspect='equal')
    axes.set_axis_off()
    set_heading(figure, title, note)
    return save(figure, path)


def _draw(axes: Axes, match: Match, left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    pixels = _pixels(match.image)
    height, width = (size / max(pixels.shape[:2]) * 0.84 for size in pixels.shape[:2])
    x, y = left + 0.5 - width / 2, top + 0.5 - height / 2
    axes.imshow(
        pixels, extent=(x, x + width, y + height, y), cmap='gray', vmin=0, vmax=255, interpolation='antialiased'
    )
    if match.correct is not None:
        colour, sign = (RIGHT, '✓') if match.correct else (WRONG, '✗')
        frame = Rectangle((left + 0.05, top + 0.05), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=2.4)
        frame.set_linestyle('solid' if match.correct else (0, (3, 1.5)))
        axes.add_patch(frame)
        badge = {'boxstyle': 'round,pad=0.15', 'facecolor': colour, 'edgecolor': 'none'}
        axes.text(left + 0.9, top + 0.1, sign, ha='center', va='center', fontsize=8, color='white', bbox=badge)
    if match.caption:
        axes.text(left + 0.5, top + 1.0, match.caption, ha='center', va='top', fontsize=7, color=INK)


def _pixels(image: Picture) -> np.ndarray:
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise ValueError(
                f'images must be uint8 of shape (H, W) or (H, W, 3), got {image.dtype} of shape {image.shape}.'
            )
        picture = Image.fromarray(image)
    elif not Path(image).is_file():
        raise FileNotFoundError(f'no image at {str(image)!r}; it was moved or deleted since it was embedded.')
    else:
        picture = load_image(image)  # as it was embedded
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return np.asarray(picture)
