"""Ranks of relevant items by counting instead of sorting: the inner loop of the evaluation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Up to here one vectorised comparison per relevant item is the fastest; above, a binary search of every score among
# the thresholds is (it costs about as much as 100 comparisons, and grows only with the logarithm of their number).
_MAX_COMPARISONS = 128
# Scores per step on the CPU: 2 MiB and a mask of 512 KiB, which stay in the cache from one comparison to the next.
_STEP = 1 << 19


def count_at_least(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Count, for every threshold, the scores of its row that are at least as high.

    Args:
        scores: Scores, float32, without NaN, shape `(B, P)`; P a multiple of 64.
        thresholds: Descending in each row, padded at the end with -inf, shape `(B, R)`.

    Returns:
        Counts, int64, shape `(B, R)`; undefined at the padding.
    """
    if scores.device.type != 'cpu':
        return torch.stack([(scores >= threshold[:, None]).sum(1) for threshold in thresholds.T], 1)
    # NumPy in our own threads, not PyTorch's: its comparison to booleans is vectorised, and threads that share no
    # barriers lose nothing when other processes hold a core (hundreds of small parallel steps lost up to 20x).
    rows = max(1, _STEP // scores.shape[1])
    parts = [(s.numpy(), t.numpy()) for s, t in zip(scores.split(rows), thresholds.split(rows), strict=True)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.from_numpy(np.concatenate(list(pool.map(_count_rows, *zip(*parts, strict=True)))))


def _count_rows(scores: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    counts = np.zeros(thresholds.shape, np.int64)
    used = int((thresholds > -np.inf).sum(1).max())
    if used > _MAX_COMPARISONS:
        for row, threshold, count in zip(scores, thresholds[:, :used], counts[:, :used], strict=True):
            reached = np.searchsorted(threshold[::-1], row, side='right')  # how many thresholds each score reaches
            count[:] = np.bincount(reached, minlength=used + 1)[:0:-1].cumsum()
        return counts
    mask = np.empty(scores.shape, np.bool_)
    # Eight booleans are added at a time as the bytes of one integer; no byte exceeds 8.
    packed = mask.view(np.uint64).reshape(len(mask), 8, -1)
    for i in range(used):
        np.greater_equal(scores, thresholds[:, i, None], out=mask)
        counts[:, i] = packed.sum(1).view(np.uint8).sum(1)
    return counts


def rank_block(scores: Tensor, columns: Tensor, relevant: Tensor, junk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision, rank of the first hit and inverse negative penalty of a block of queries.

    Args:
        scores: Scores of B queries against the gallery, higher is nearer, shape `(B, P)`: P is Ng rounded up
            to a multiple of 64, with -inf from Ng on; **overwritten** at junk.
        columns: Gallery indices with the query's identity, shape `(B, L)`.
        relevant: Which of `columns` are relevant, at least one per row, shape `(B, L)`.
        junk: Which of `columns` are left out, shape `(B, L)`.

    Returns:
        AP in (0, 1], float64; the first hit's rank in 1 .. Ng, int64; INP in (0, 1], float64; each `(B,)`, on the CPU.
    """
    own = scores.gather(1, columns).masked_fill_(~relevant, -torch.inf)
    rows, entries = junk.nonzero(as_tuple=True)
    scores[rows, columns[rows, entries]] = -torch.inf
    num_relevant = relevant.sum(1)
    thresholds = own.sort(1, descending=True).values[:, : int(num_relevant.max())].contiguous()

    # What is left is small, and float64, which not every accelerator has.
    rank, thresholds, num_relevant = count_at_least(scores, thresholds).cpu(), thresholds.cpu(), num_relevant.cpu()
    hits = torch.searchsorted(-thresholds, -thresholds, right=True)  # relevant items at least as high, ties included
    used = torch.arange(thresholds.shape[1]) < num_relevant[:, None]
    precision = torch.where(used, hits.double() / rank.clamp(min=1), 0.0)
    last = rank.gather(1, num_relevant[:, None] - 1)[:, 0]
    return precision.sum(1) / num_relevant, rank[:, 0] - hits[:, 0] + 1, num_relevant / last.double()
