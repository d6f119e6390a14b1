"""A forward at a width that a model does not have, for training: gradients come at the size of the next wider one.

Its tensors are leading slices of what the next wider width reads, its norms' affine parameters too. What every width
owns besides, running statistics, it has none of: norms write to a copy that is thrown away, which is as good as nothing
in training, where they normalise by the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .insert import leading_of
from .leaves import sliced_leaves
from .readers import slim_states

__all__ = ['leaves_between']


@contextmanager
def leaves_between(module: nn.Module, like: nn.Module, index: int, wider: int) -> Iterator[list[Tensor]]:
    """Runs the forwards in the block at width number `index` of `like`, in training.

    Args:
        module: The slimmable model; its active width is the next wider one that it has.
        like: The same architecture with more widths, on the meta device; it is only looked at.
        index: Number of the width in `like`.
        wider: Number of the model's active width in `like`.

    Yields:
        What `sliced_leaves` yields for the active width; of a leaf, the gradient is 0 outside of the leading slice.
    """
    with sliced_leaves(module) as leaves:
        pairs = list(zip(slim_states(module), slim_states(like), strict=True))
        try:
            for (child, state), (_, more) in pairs:
                for name, cut in more.cuts.items():
                    wide = state.read(child, name)
                    if wide is None:
                        continue
                    if name in child._buffers:
                        with torch.no_grad():
                            wide = wide.clone()
                    state.leaves[name] = leading_of(cut, wide, index, wider)
                child.__dict__.update(more.attributes[index])
            yield leaves
        finally:
            for (child, state), _ in pairs:
                child.__dict__.update(state.attributes[state.index])
