"""Nested sizes: the first numbers of an embedding are an embedding of their own.

Matryoshka representation learning (Kusupati et al., NeurIPS 2022, https://arxiv.org/abs/2205.13147): a model with
`embed_dims=(32, 64, 128, 256)` is trained at each of these sizes, so that an embedding may be cut to its first 32, 64
or 128 numbers wherever it lies. The weights are those of a model of 256 numbers.

A BatchNorm at the end of the neck has statistics and affine parameters for each width, and none for each size. It mixes
no channels, so the statistics of a number are the same however many stand beside it: at each size the first numbers are
normalised as that size's own. A size's own affine parameters would be another matter: the first numbers of a longer
embedding would no longer be the shorter one, and nothing could be cut. What a size does have of its own is the length
of the vector: cosine similarity, the cosine classifier and the triplet loss divide by the norm of the numbers in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ['DEFAULT_SIZE', 'check_size', 'check_sizes', 'leading']

DEFAULT_SIZE = 256


def check_sizes(embed_dim: int | None, embed_dims: Sequence[int] | None) -> tuple[int, ...]:
    """Validates the sizes that a model is asked for.

    Args:
        embed_dim: The largest, 0 for no neck; None for that of `embed_dims`, or 256.
        embed_dims: Different whole numbers >= 1, in any order; None for `embed_dim` alone.

    Returns:
        All sizes, ascending; none without a neck.

    Raises:
        ValueError: They are not such numbers, or `embed_dim` is not the largest of them.
    """
    if embed_dims is None:
        largest = DEFAULT_SIZE if embed_dim is None else embed_dim
        return (largest,) if largest else ()
    numbers = list(embed_dims) if isinstance(embed_dims, list | tuple) else []
    if not numbers or not all(map(_is_size, numbers)) or len(set(numbers)) != len(numbers):
        raise ValueError(
            f'embed_dims must be different whole numbers of at least 1, got {embed_dims!r}; such as (32, 64, 128, 256)'
        )
    if embed_dim not in (None, max(numbers)):
        raise ValueError(
            f'embed_dim must be the largest of embed_dims, {max(numbers)}, got {embed_dim}; leave it out beside them'
        )
    return tuple(sorted(numbers))


def check_size(embed_dims: Sequence[int], dim: Any) -> int:
    """The size that is asked for, if it is one of a model's.

    Raises:
        ValueError: It is not; the message lists them.
    """
    if not _is_size(dim) or dim not in embed_dims:
        raise ValueError(
            f'dim must be one of {tuple(embed_dims)}, got {dim!r}; sizes are chosen when the model is created '
            '(embed_dims)'
        )
    return int(dim)


def leading(embedding: Tensor, embed_dims: Sequence[int], dim: int | None) -> Tensor:
    """The first `dim` numbers of embeddings (B, D), all of them for None.

    Raises:
        ValueError: `dim` is none of the sizes `embed_dims`, or these are no vectors.
    """
    if dim is None:
        return embedding
    size = check_size(embed_dims, dim)
    if embedding.ndim != 2:
        raise ValueError(
            f'dim needs embeddings (B, D), got the shape {tuple(embedding.shape)}; give the model a pooling '
            '(global_pool), or leave dim out'
        )
    return embedding[:, :size]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
