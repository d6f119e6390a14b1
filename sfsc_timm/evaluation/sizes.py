"""The compatibility matrix at several embedding sizes, and the table of what each size is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cost import bytes_per_item
from .matrix import CompatibilityMatrix

__all__ = ['BY_SIZE', 'by_size', 'size_cells', 'with_sizes']

BY_SIZE = 'by_dim'  # the key in matrix.json


def with_sizes(matrices: Mapping[int, CompatibilityMatrix]) -> CompatibilityMatrix:
    """The matrix of the largest size, with those of all sizes in its `info`, from where `by_size` takes them.

    Args:
        matrices: By size, at least one, all of the same sub-models.
    """
    largest = matrices[max(matrices)]
    shared = {'widths', 'names', *largest.info}
    sizes: dict[str, Any] = {}
    for dim, matrix in sorted(matrices.items()):
        own = {key: value for key, value in matrix.to_dict().items() if key not in shared}
        sizes[str(dim)] = {'bytes_per_item': bytes_per_item(dim), **own}
    largest.info[BY_SIZE] = sizes
    return largest


def by_size(matrix: CompatibilityMatrix) -> dict[int, CompatibilityMatrix]:
    """The matrix of each size, ascending; none where one size was evaluated.

    Raises:
        ValueError: What a file says of them is no matrix of these sub-models.
    """
    found, shared = matrix.info.get(BY_SIZE, {}), {'widths': matrix.widths, 'names': matrix.names}
    try:
        sizes = {int(dim): CompatibilityMatrix.from_dict({**own, **shared}) for dim, own in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'{BY_SIZE} must hold a matrix for each size: {error}') from error
    return dict(sorted(sizes.items()))


def size_cells(matrix: CompatibilityMatrix) -> tuple[list[str], list[list[str]]]:
    """What each width is worth at each size: heads of the columns, and a row of each width, its name first.

    A head is the size and the bytes of a gallery item; a cell mAP in percent of the width in a gallery of its own, and
    in that of the biggest sub-model.

    Args:
        matrix: Of several sizes.
    """
    sizes = by_size(matrix)
    heads = ['query', *(f'{dim} ({bytes_per_item(dim)} B)' for dim in sizes)]
    rows = [
        [f'{name} ({width:g})', *(f'{one.mAP[i, i]:.1f} / {one.mAP[i, -1]:.1f}' for one in sizes.values())]
        for i, (name, width) in enumerate(zip(matrix.names, matrix.widths, strict=True))
    ]
    return heads, rows
