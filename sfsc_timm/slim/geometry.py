"""How one stored tensor looks at every width: a nested slice that is shared, or a segment of its own.

A *cut* is pure geometry. It owns no tensor, so every copy of a model can use the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

__all__ = ['Cut', 'PrivateCut', 'SharedCut']

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SharedCut:
    """Width k uses the leading slice of every dimension, so narrower widths are nested in wider ones.

    Attributes:
        shapes: Shape of the slice at each width, ascending; the last is the stored tensor's own.
        parts: Equal parts packed along each dimension (3 for a transformer's qkv, else 1); the leading slice is
            taken of every part.
    """

    shapes: tuple[Shape, ...]
    parts: Shape

    def __post_init__(self) -> None:
        for narrow, wide in zip(self.shapes, self.shapes[1:], strict=False):
            if len(narrow) != len(wide) or any(n > w for n, w in zip(narrow, wide, strict=True)):
                raise ValueError(
                    f'shapes must grow with the width in every dimension, got {self.shapes}: '
                    'a narrower width has to be a slice of the wider ones'
                )

    @property
    def full_shape(self) -> Shape:
        """Shape of the stored tensor."""
        return self.shapes[-1]

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
        leading = SharedCut(self.shapes, parts=(1,) * tensor.ndim)
        return torch.cat([leading.view(tensor, k).reshape(-1) for k in range(len(self.shapes))])


Cut = SharedCut | PrivateCut
