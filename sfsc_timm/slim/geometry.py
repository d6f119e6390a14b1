"""Which part of every stored tensor belongs to which width, and which widths share it.

A *cut* says how one stored tensor looks at every width: a nested slice that is shared, or a segment of its own. A
*layout* lists the cuts of all parameters and divides what is shared into *shells*: shell k of a parameter is what
exactly the widths >= k use. All of it is pure geometry that owns no tensor, so every copy of a model can use the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

__all__ = ['Cut', 'PrivateCut', 'Rectangle', 'Shape', 'SharedCut', 'SliceLayout']

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SharedCut:
    """Width k uses the leading slice of every dimension, so narrower widths are nested in wider ones.

    Attributes:
        shapes: Shape of the slice at each width, ascending; the last is the stored tensor's own. Equal shapes are
            allowed: a classifier that all widths use whole has the same one for each.
        parts: Equal parts packed along each dimension (3 for a transformer's qkv, else 1); the leading slice is
            taken of every part. Left out: 1 everywhere.

    Raises:
        ValueError: If there is no shape, or one does not fit into the next.
    """

    shapes: tuple[Shape, ...]
    parts: Shape = ()

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ValueError('shapes must hold one shape for each width, got none')
        for narrow, wide in pairwise(self.shapes):
            if len(narrow) != len(wide) or any(n > w for n, w in zip(narrow, wide, strict=True)):
                raise ValueError(
                    f'shapes must grow with the width in every dimension, got {self.shapes}: '
                    'a narrower width has to be a slice of the wider ones'
                )
        if not self.parts:
            object.__setattr__(self, 'parts', (1,) * len(self.full_shape))

    @property
    def full_shape(self) -> Shape:
        """Shape of the stored tensor."""
        return self.shapes[-1]

    @property
    def boxes(self) -> tuple[Shape, ...]:
        """Shapes at each width; a dimension that packs parts becomes two, so that every slice is a leading one."""
        return tuple(_unpacked(shape, self.parts) for shape in self.shapes)

    def is_whole(self, index: int) -> bool:
        """Whether width number `index` uses the stored tensor as it is."""
        return self.shapes[index] == self.shapes[-1]

    def view(self, tensor: Tensor, index: int) -> Tensor:
        """Slice of the stored `tensor` at width number `index` (a view, unless a dimension packs several parts)."""
        for dim, (size, full, parts) in enumerate(zip(self.shapes[index], self.shapes[-1], self.parts, strict=True)):
            if size == full:
                continue
            if parts == 1:
                tensor = tensor.narrow(dim, 0, size)
            else:
                packed = tensor.unflatten(dim, (parts, full // parts))
                tensor = packed.narrow(dim + 1, 0, size // parts).flatten(dim, dim + 1)
        return tensor

    def store(self, tensor: Tensor) -> Tensor:
        """Stored form of a full-width `tensor`: itself, since narrower widths are slices of it."""
        return tensor


@dataclass(frozen=True)
class PrivateCut:
    """Every width owns a segment of one flat stored tensor: the normalisation of that width.

    One flat parameter instead of a list of modules: it gets a gradient at any width (timm's and DDP's check),
    and being 1-D it is left out of weight decay like any other norm parameter.

    Attributes:
        shapes: Shape at each width, ascending; `()` for a counter such as `num_batches_tracked`.
        offsets: Where each width's segment starts, and where the last one ends.
    """

    shapes: tuple[Shape, ...]
    offsets: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = [prod(shape) for shape in self.shapes]
        object.__setattr__(self, 'offsets', (0, *accumulate(sizes)))

    @property
    def full_shape(self) -> Shape:
        """Shape of the stored tensor."""
        return (self.offsets[-1],)

    @property
    def boxes(self) -> tuple[Shape, ...]:
        """Flat shape of each width's segment."""
        return tuple((stop - start,) for start, stop in pairwise(self.offsets))

    def is_whole(self, index: int) -> bool:
        """Whether width number `index` uses the stored tensor as it is."""
        return self.shapes[index] == self.full_shape

    def view(self, tensor: Tensor, index: int) -> Tensor:
        """Segment of the stored `tensor` that belongs to width number `index` (always a view)."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        segment = tensor.narrow(0, start, stop - start)
        shape = self.shapes[index]
        return segment if len(shape) == 1 else segment.view(shape)

    def store(self, tensor: Tensor) -> Tensor:
        """Stored form of a full-width `tensor`: every width starts as its leading slice."""
        leading = SharedCut(self.shapes)
        return torch.cat([leading.view(tensor, k).reshape(-1) for k in range(len(self.shapes))])


Cut = SharedCut | PrivateCut


@dataclass(frozen=True)
class Rectangle:
    """A block of one parameter that exactly the widths >= shell share.

    Attributes:
        parameter: Index of the parameter in its layout.
        shell: Index of the smallest width that uses the block.
        index: One slice per dimension of the cut's boxes. It picks the same elements from each of those widths'
            gradients.
        shape: Lengths of these slices.
    """

    parameter: int
    shell: int
    index: tuple[slice, ...]
    shape: Shape

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def rows(self, limit: int) -> Iterator[Rectangle]:
        """Divides the rectangle along its first dimension.

        Args:
            limit: Largest number of elements of a piece, unless one row has more.

        Yields:
            The pieces, in order. The rectangle itself if it is small enough.
        """
        if self.numel <= limit:
            yield self
            return
        first, *rest = self.index
        step = max(1, limit // prod(self.shape[1:]))
        for start in range(first.start, first.stop, step):
            stop = min(start + step, first.stop)
            index = (slice(start, stop), *rest)
            yield Rectangle(self.parameter, self.shell, index, (stop - start, *self.shape[1:]))


class SliceLayout:
    """The cuts of a slimmable network's parameters, and the shells that the widths share.

    Shell k of a parameter, the box of width k without the box of width k - 1, is split into disjoint rectangles, one
    for every dimension in which the two boxes differ. What is private has no shell.

    Args:
        parameters: One cut per parameter, in the order in which gradients will be given.

    Raises:
        ValueError: If there is none, or they differ in their number of widths.

    Examples:
        >>> layout = SliceLayout([SharedCut(((16, 8), (32, 16))), PrivateCut(((16,), (32,)))])
        >>> layout.shapes(0)
        [(16, 8), (16,)]
    """

    def __init__(self, parameters: Sequence[Cut]) -> None:
        counts = {len(cut.shapes) for cut in parameters}
        if len(counts) != 1:
            raise ValueError(
                'parameters must hold at least one cut, all with the same number of widths, got '
                f'{len(parameters)} with {sorted(counts)} widths'
            )
        self.parameters = tuple(parameters)
        self.num_widths = counts.pop()
        self.boxes = tuple(cut.boxes for cut in self.parameters)
        self.rectangles = tuple(
            rectangle
            for index, cut in enumerate(self.parameters)
            if isinstance(cut, SharedCut)
            for rectangle in _rectangles(index, self.boxes[index])
        )

    def shapes(self, width: int) -> list[Shape]:
        """Lists the shapes of one width's gradients: the boxes of its slices.

        Args:
            width: Index of the width.

        Returns:
            One shape per parameter.
        """
        return [boxes[width] for boxes in self.boxes]

    def full_shape(self, parameter: int) -> Shape:
        """Gives the shape of a whole parameter's gradient.

        Args:
            parameter: Index of the parameter.

        Returns:
            That of its `.grad`, with a dimension that packs several parts as two.
        """
        cut = self.parameters[parameter]
        return cut.full_shape if isinstance(cut, PrivateCut) else self.boxes[parameter][-1]

    def numel(self) -> int:
        """Counts the elements of all widths' slices together: the memory that their gradients take."""
        return sum(prod(box) for boxes in self.boxes for box in boxes)


def _unpacked(shape: Shape, parts: Shape) -> Shape:
    return tuple(
        n for size, count in zip(shape, parts, strict=True) for n in ((size,) if count == 1 else (count, size // count))
    )


def _rectangles(parameter: int, boxes: Sequence[Shape]) -> Iterator[Rectangle]:
    """Splits every shell of one parameter into disjoint rectangles."""
    whole = tuple(slice(0, size) for size in boxes[0])
    yield Rectangle(parameter, 0, whole, boxes[0])
    for shell, (inner, outer) in enumerate(pairwise(boxes), start=1):
        for dim in range(len(outer)):
            if inner[dim] == outer[dim]:
                continue
            # Inside the inner box before `dim`, outside in `dim`, anywhere after: no element is in two of these.
            index = (
                *(slice(0, size) for size in inner[:dim]),
                slice(inner[dim], outer[dim]),
                *(slice(0, size) for size in outer[dim + 1 :]),
            )
            yield Rectangle(parameter, shell, index, tuple(s.stop - s.start for s in index))
