"""Synthetic embeddings with cluster structure, of any number without ever holding more than a block of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SIZE, CLUSTERS, SPREAD = 256, 1000, 0.7
ROWS = 32768


def clustered(count: int, seed: int, first: int = 0) -> Iterator[Tensor]:
    """Embeddings (n, 256) of unit length: normals around centres that are normals themselves.

    Args:
        count: How many.
        seed: Other items of the same clusters.
        first: Number of the first block; a block is `ROWS` items, and the same wherever one begins.
    """
    centres = torch.randn(CLUSTERS, SIZE, generator=torch.Generator().manual_seed(0))
    for block, begin in enumerate(range(first * ROWS, count, ROWS), first):
        random = torch.Generator().manual_seed(seed * 1_000_003 + block)
        rows = min(ROWS, count - begin)
        chosen = centres[torch.randint(CLUSTERS, (rows,), generator=random)]
        yield torch.nn.functional.normalize(chosen + SPREAD * torch.randn(rows, SIZE, generator=random), dim=1)
