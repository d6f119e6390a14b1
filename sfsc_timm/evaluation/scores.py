"""Scores of queries against a gallery, in blocks of bounded memory that round the same wherever an item stands."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, log2
from typing import Literal, get_args

import torch
from torch import Tensor

Distance = Literal['cosine', 'euclidean']

# Default limits of a block of scores: 128 MiB, and more rows than this no longer speed the matrix product up.
_BLOCK_SCORES, _BLOCK_QUERIES = 1 << 25, 1024
# Matrix sizes are padded to these multiples, because BLAS computes the last few rows and columns by other kernels that
# round differently: equal embeddings would get unequal scores, depending on where in the gallery they stand.
_PAD_QUERIES, _PAD_GALLERY = 16, 64
# About as many rows of a gallery tell its centre.
_CENTRE_ROWS = 1 << 13


def score_blocks(
    query: Tensor,
    gallery: Tensor,
    queries: Tensor,
    distance: Distance,
    block_size: int | None,
    centre: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Score queries against the whole gallery, block by block.

    Args:
        query: Query embeddings, shape `(Nq, D)`; its device is used.
        gallery: Gallery embeddings, shape `(Ng, D)`.
        queries: Which queries to score, shape `(N,)`.
        distance: 'cosine' or 'euclidean'.
        block_size: Queries per block; None chooses it.
        centre: Of `centre_of`, taken off both sides; None takes nothing off.

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
    centre = None if centre is None else centre.to(device)
    columns = _prepare(gallery.to(device), distance, _PAD_GALLERY, centre)
    buffer = torch.empty(_round_up(size, _PAD_QUERIES), len(columns), device=device)
    bias = -0.5 * columns.square().sum(1) if distance == 'euclidean' else torch.zeros(1, device=device)
    for indices in queries.split(size):
        rows = _prepare(query[indices.to(device)], distance, _PAD_QUERIES, centre)
        # Euclidean: -|q - g|^2 / 2 up to |q|^2 / 2, which is the same for the whole row.
        torch.addmm(bias, rows, columns.T, beta=int(distance == 'euclidean'), out=buffer[: len(rows)])
        scores = buffer[: len(indices)]
        scores[:, len(gallery) :] = -torch.inf
        yield indices, scores


def centre_of(gallery: Tensor, distance: Distance) -> Tensor | None:
    """About the mean of a gallery `(D,)`, to be taken off both sides before Euclidean distances; None for 'cosine'.

    |q|^2 - 2 q.g + |g|^2 loses what is small beside |g|^2: at a common offset of 10,000 nothing is left of a distance
    of 10 in float32. A distance does not change when both points move, so the offset is taken off first. It is rounded
    to a power of two below the spread of the gallery: numbers of few digits, such as integers, stay exact, and where
    there is no offset to speak of it is 0.
    """
    if distance != 'euclidean':
        return None
    sample = gallery.detach()[:: -(-len(gallery) // _CENTRE_ROWS)].cpu().double()
    mean = sample.mean(0)
    spread = float((sample - mean).square().mean().sqrt())
    if spread > 0:
        step = 2.0 ** floor(log2(spread))
        mean = (mean / step).round() * step
    # In float32, so that the very same numbers are taken off, whatever the types of the two sides.
    return mean.float()


def centred(embeddings: Tensor, centre: Tensor | None) -> Tensor:
    """Embeddings less the centre, in float32; the difference is taken before what is finer than float32 is lost."""
    return embeddings.detach().float() if centre is None else (embeddings.detach() - centre).float()


def _prepare(embeddings: Tensor, distance: Distance, multiple: int, centre: Tensor | None) -> Tensor:
    """Copy to float32, centre or normalise for 'cosine' (zero stays zero), pad with zero rows to a `multiple`."""
    prepared = torch.zeros(_round_up(len(embeddings), multiple), embeddings.shape[1], device=embeddings.device)
    prepared[: len(embeddings)] = centred(embeddings, centre)
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
    # NaN, infinity and what would overflow in a product (of vectors that may be twice as long once they are centred)
    # all show in the squared norm.
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    bad = ~torch.linalg.vector_norm(embeddings.detach(), dim=1, dtype=dtype).mul(2).float().square_().isfinite()
    if bad.any():
        raise ValueError(
            f'{name} embeddings contain NaN, infinity or numbers too large for float32 in {int(bad.sum())} of '
            f'{len(embeddings)} rows, the first is row {int(bad.nonzero()[0])}. Check the checkpoint, and whether '
            'half precision overflowed.'
        )
