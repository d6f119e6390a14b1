"""The largest scores of a block, by groups."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['GROUP', 'select']

# A block of scores is reduced to this many times fewer group maxima before anything is selected.
GROUP = 64


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Largest k of each row of a block with their columns, `(B, k)` each, in no particular order.

    The k largest scores lie in the k groups of columns with the largest maxima: every other group's maximum is below
    k numbers. One vectorised pass over the block finds the groups, and only they are searched.

    Args:
        scores: Block of scores `(B, P)`, P a multiple of 64.
        k: How many to select, at most P.
    """
    groups = scores.shape[1] // GROUP
    if groups <= 2 * k:
        values, columns = scores.topk(k, 1, sorted=False)
        return values, columns
    chosen = scores.view(len(scores), groups, GROUP).amax(2).topk(k, 1, sorted=False).indices
    candidates = (chosen[:, :, None] * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)
    values, position = scores.gather(1, candidates).topk(k, 1, sorted=False)
    return values, candidates.gather(1, position)
