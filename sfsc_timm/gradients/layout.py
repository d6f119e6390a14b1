"""Which part of every parameter belongs to which width."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SharedSlices:
    """A parameter of which every width uses the leading slice of each dimension.

    Args:
        boxes: Shape of each width's slice, ascending. The last one is the whole parameter. Equal boxes are allowed: a
            classifier that all widths use whole has the same box for each.

    Raises:
        ValueError: If there is no box, or a box does not fit into the next one.
    """

    boxes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not self.boxes:
            raise ValueError('Parameter `boxes` must hold one shape per width. Found none.')
        for inner, outer in zip(self.boxes, self.boxes[1:], strict=False):
            if len(inner) != len(outer) or any(i > o for i, o in zip(inner, outer, strict=True)):
                raise ValueError(
                    f'Parameter `boxes` must ascend in every dimension: {inner} does not fit into {outer}. Give the '
                    'widths in ascending order, and reshape packed parameters (qkv) so that slices are leading ones.'
                )

    @property
    def num_widths(self) -> int:
        """Number of widths."""
        return len(self.boxes)

    def shape(self, width: int) -> Shape:
        """Shape of the gradient of the width with this index."""
        return self.boxes[width]


@dataclass(frozen=True)
class PrivateSegments:
    """A 1-D parameter that packs one segment per width, such as the weights of per-width normalisation.

    No two widths share an element, so there is nothing to project.

    Args:
        sizes: Number of elements of each width's segment. The segments follow one another in the order of the widths.
    """

    sizes: tuple[int, ...]

    @property
    def num_widths(self) -> int:
        """Number of widths."""
        return len(self.sizes)

    def shape(self, width: int) -> Shape:
        """Shape of the gradient of the width with this index."""
        return (self.sizes[width],)


@dataclass(frozen=True)
class Rectangle:
    """A block of one parameter that exactly the widths >= shell share.

    Args:
        parameter: Index of the parameter in its layout.
        shell: Index of the smallest width that uses the block.
        index: One slice per dimension. It picks the same elements from each of those widths' gradients.
        shape: Lengths of these slices.
    """

    parameter: int
    shell: int
    index: tuple[slice, ...]
    shape: Shape

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def rows(self, limit: int) -> Iterator['Rectangle']:
        """Cuts the rectangle along its first dimension.

        Args:
            limit: Largest number of elements of a piece, unless one row has more.

        Yields:
            The pieces, in order. The rectangle itself if it is small enough.
        """
        if self.numel <= limit:
            yield self
            return
        first, *rest = self.index
        step = max(1, limit // math.prod(self.shape[1:]))
        for start in range(first.start, first.stop, step):
            stop = min(start + step, first.stop)
            index = (slice(start, stop), *rest)
            yield Rectangle(self.parameter, self.shell, index, (stop - start, *self.shape[1:]))


class SliceLayout:
    """The nested slices of a slimmable network's parameters.

    The *shell* k of a parameter is what exactly the widths >= k share: the box of width k without the box of width
    k - 1. It is split into disjoint rectangles, one for every dimension in which the two boxes differ.

    Args:
        parameters: One layout per parameter, in the order in which gradients will be given.

    Raises:
        ValueError: If there is none, or they differ in their number of widths.

    Examples:
        >>> layout = SliceLayout([SharedSlices(((16, 8), (32, 16))), PrivateSegments((16, 32))])
        >>> layout.shapes(0)
        [(16, 8), (16,)]
    """

    def __init__(self, parameters: Sequence[SharedSlices | PrivateSegments]) -> None:
        counts = {parameter.num_widths for parameter in parameters}
        if len(counts) != 1:
            raise ValueError(
                'Parameter `parameters` must hold at least one layout, all with the same number of widths. Found '
                f'{len(parameters)} with {sorted(counts)} widths.'
            )
        self.parameters = tuple(parameters)
        self.num_widths = counts.pop()
        self.rectangles = tuple(
            rectangle
            for index, parameter in enumerate(self.parameters)
            if isinstance(parameter, SharedSlices)
            for rectangle in _rectangles(index, parameter.boxes)
        )

    def shapes(self, width: int) -> list[Shape]:
        """Lists the shapes of one width's gradients.

        Args:
            width: Index of the width.

        Returns:
            One shape per parameter.
        """
        return [parameter.shape(width) for parameter in self.parameters]

    def full_shape(self, parameter: int) -> Shape:
        """Gives the shape of a whole parameter.

        Args:
            parameter: Index of the parameter.

        Returns:
            The shape of its `.grad`.
        """
        layout = self.parameters[parameter]
        return (sum(layout.sizes),) if isinstance(layout, PrivateSegments) else layout.boxes[-1]

    def numel(self) -> int:
        """Counts the elements of all widths' slices together: the memory that their gradients take."""
        return sum(math.prod(shape) for width in range(self.num_widths) for shape in self.shapes(width))


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
