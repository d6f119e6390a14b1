"""Scores of queries against a gallery, in blocks of bounded memory that round the same wherever an item stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

Distance = Literal['cosine', 'euclidean']

# Default limits of a block of scores: 128 MiB, and more rows than this no longer speed the matrix product up.
_BLOCK_SCORES, _BLOCK_QUERIES = 1 << 25, 1024
# Matrix sizes are padded to these multiples, because BLAS computes the last few rows and columns by other kernels that
# round differently: equal embeddings would get unequal scores, depending on where in the gallery they stand.
_PAD_QUERIES, _PAD_GALLERY = 16, 64


def score_blocks(
    query: Tensor,
    gallery: Tensor,
    queries: Tensor,
    distance: Distance,
    block_size: int | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Score queries against the whole gallery, block by block.

    Yields:
        Query indices `(B,)` and scores `(B, P)`; P is Ng rounded up to a multiple of 64, and the columns from Ng on
        are -inf. The scores may be overwritten; the next block reuses their memory.
    """
    if distance not in get_args(Distance):
        raise ValueError(f'distance must be one of {get_args(Distance)}, got {distance!r}.')
    if block_size is not None and block_size < 1:
        raise ValueError(f'block_size must be at least 1, got {block_size}; None chooses it.')
    size = block_size or min(_BLOCK_QUERIES, max(1, _BLOCK_SCORES // len(gallery)))
    size = min(size, len(queries))
    device = query.device
    columns = _prepare(gallery.to(device), distance, _PAD_GALLERY)
    buffer = torch.empty(_round_up(size, _PAD_QUERIES), len(columns), device=device)
    bias = -0.5 * columns.square().sum(1) if distance == 'euclidean' else torch.zeros(1, device=device)
    for indices in queries.split(size):
        rows = _prepare(query[indices.to(device)], distance, _PAD_QUERIES)
        # Euclidean: -|q - g|^2 / 2 up to |q|^2 / 2, which is the same for the whole row.
        torch.addmm(bias, rows, columns.T, beta=int(distance == 'euclidean'), out=buffer[: len(rows)])
        scores = buffer[: len(indices)]
        scores[:, len(gallery) :] = -torch.inf
        yield indices, scores


def _prepare(embeddings: Tensor, distance: Distance, multiple: int) -> Tensor:
    """Copy to float32, normalise for 'cosine' (a zero vector stays zero), pad with zero rows to a `multiple`."""
    prepared = torch.zeros(_round_up(len(embeddings), multiple), embeddings.shape[1], device=embeddings.device)
    prepared[: len(embeddings)] = embeddings.detach()
    if distance == 'cosine':
        prepared /= torch.linalg.vector_norm(prepared, dim=1, keepdim=True).clamp_(min=1e-12)
    return prepared


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def check_embeddings(embeddings: Tensor, name: str, count: int, dim: int | None = None) -> None:
    """Raise ValueError unless `embeddings` are `count` finite floating-point vectors (of `dim` numbers)."""
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ValueError(
            f'{name} embeddings must be a floating-point matrix (N, D), got shape {tuple(embeddings.shape)}, '
            f'{embeddings.dtype}. Pool and flatten feature maps first.'
        )
    if len(embeddings) != count:
        raise ValueError(f'{name} embeddings have {len(embeddings)} rows but there are {count} {name} identities.')
    if len(embeddings) == 0:
        raise ValueError(f'{name} embeddings have 0 rows; there is nothing to evaluate.')
    if dim is not None and embeddings.shape[1] != dim:
        raise ValueError(
            f'query embeddings have {dim} numbers but {name} embeddings {embeddings.shape[1]}; both must come from one '
            'metric space (the same embed_dim).'
        )
    # NaN, infinity and what would overflow in a product all show in the squared norm.
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    bad = ~torch.linalg.vector_norm(embeddings.detach(), dim=1, dtype=dtype).float().square_().isfinite()
    if bad.any():
        raise ValueError(
            f'{name} embeddings contain NaN, infinity or numbers too large for float32 in {int(bad.sum())} of '
            f'{len(embeddings)} rows, the first is row {int(bad.nonzero()[0])}. Check the checkpoint, and whether '
            'half precision overflowed.'
        )
