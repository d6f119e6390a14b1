"""Inner products of the widths' gradients, from gradients at slice size."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from .._private import foreach_copy_
from ..slim import Rectangle

Gradients = Sequence[Sequence[Tensor | None]]

# Elements gathered at a time. On the CPU a chunk of each width should stay in the cache between its copy and the
# products (benchmarks/speed/projection.py); on an accelerator fewer and larger kernels win.
_CHUNK = {'cpu': 1 << 17}
_ACCELERATOR_CHUNK = 1 << 22


class GramianPlan:
    """Computes Gramians from gradients at slice size, one per cell.

    A cell is a set of rectangles of the same shell. They are gathered chunk by chunk into one small float64 buffer per
    width. So no product of float32 gradients overflows or vanishes, none comes from a subtraction, and what is held
    beside the gradients is a few MB whatever the model.

    Args:
        cells: Rectangles by cell. All rectangles of a cell have the same shell.
        num_widths: Number of widths m.
    """

    def __init__(self, cells: Sequence[Sequence[Rectangle]], num_widths: int) -> None:
        self._cells = cells
        self._num_widths = num_widths
        self._chunks: dict[int, list[tuple[int, list[Rectangle]]]] = {}

    def __call__(self, gradients: Gradients) -> Tensor:
        """Computes the Gramian of every cell.

        Args:
            gradients: One gradient per width and parameter, at slice size; None counts as zero.

        Returns:
            `(cells, m, m)`, in float64 on the CPU. The rows and columns of the widths that have no part in a cell's
            shell are zero.
        """
        m = self._num_widths
        gramians = torch.zeros(len(self._cells), m, m, dtype=torch.float64)
        device = next((g.device for width in gradients for g in width if g is not None), None)
        if device is None or not self._cells:
            return gramians
        limit = _CHUNK.get(device.type, _ACCELERATOR_CHUNK)
        chunks = self._chunks.setdefault(limit, list(self._cut(limit)))
        # The MPS backend has no float64.
        dtype = torch.float32 if device.type == 'mps' else torch.float64
        longest = max(sum(r.numel for r in chunk) for _, chunk in chunks)
        buffer = torch.empty(m, longest, dtype=dtype, device=device)
        places, products = [], []
        for cell, chunk in chunks:
            shell = chunk[0].shell
            rows = _gather(gradients[shell:], chunk, buffer)
            for (i, row), (j, column) in combinations_with_replacement(enumerate(rows, start=shell), 2):
                places.append((cell, i, j))
                products.append(torch.dot(row, column))
        values = torch.stack(products).to(device='cpu', dtype=torch.float64)
        gramians.index_put_(tuple(torch.tensor(places).T), values, accumulate=True)
        return gramians + gramians.triu(1).mT

    def _cut(self, limit: int) -> Iterator[tuple[int, list[Rectangle]]]:
        """Packs the rectangles of each cell into chunks of about `limit` elements at most."""
        for index, cell in enumerate(self._cells):
            for chunk in _pack((piece for rectangle in cell for piece in rectangle.rows(limit)), limit):
                yield index, chunk


def _pack(rectangles: Iterable[Rectangle], limit: int) -> Iterator[list[Rectangle]]:
    """Cuts a sequence of rectangles into runs of at most `limit` elements, or of one rectangle."""
    chunk: list[Rectangle] = []
    size = 0
    for rectangle in rectangles:
        if chunk and size + rectangle.numel > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(rectangle)
        size += rectangle.numel
    if chunk:
        yield chunk


def _gather(gradients: Gradients, rectangles: list[Rectangle], buffer: Tensor) -> list[Tensor]:
    """Copies the same rectangles of several widths into rows of the buffer.

    Args:
        gradients: The widths that take part.
        rectangles: What to copy.
        buffer: `(>= widths, >= elements)`.

    Returns:
        One row `(elements,)` per width.
    """
    sizes = [r.numel for r in rectangles]
    rows = [row[: sum(sizes)] for row in buffer[: len(gradients)].unbind()]
    sources, targets = [], []
    for width, row in zip(gradients, rows, strict=True):
        for rectangle, target in zip(rectangles, row.split(sizes), strict=True):
            source = width[rectangle.parameter]
            if source is None:
                target.zero_()
            else:
                sources.append(source[rectangle.index])
                targets.append(target.view(rectangle.shape))
    if sources:
        foreach_copy_(targets, sources)
    return rows
