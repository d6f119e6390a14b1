"""Widths between a model's own ones, drawn anew in each step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from timm.utils import unwrap_model
from torch import Tensor, nn

from ..models import get_widths
from ..models._added import with_widths_between
from ..slim import leaves_between

__all__ = ['RandomWidths', 'create_random_widths']

Leaves = Callable[[nn.Module], AbstractContextManager[list[Tensor]]]


class RandomWidths:
    """Draws widths between a model's own ones, so that those that are added later have been trained, too.

    The sandwich rule of universally slimmable networks (Yu and Huang, ICCV 2019, https://arxiv.org/abs/1903.05134),
    with all own widths in place of the narrowest and the widest. A drawn width has no norms: it normalises by its
    batch, with the affine parameters of the next wider own width. Its gradients are a part of that width's, of which it
    is a slice, and its loss is the next narrower one's, on that one's images.

    Args:
        model: The slimmable model.
        count: How many are drawn in each step, at least 1.
        seed: The same on every process.

    Raises:
        ValueError: There are fewer networks between the model's widths.
    """

    def __init__(self, model: Any, count: int, seed: int) -> None:
        self._like, self._between = with_widths_between(model)
        self._own = [self._like.widths.index(width) for width in model.widths]
        self._count, self._seed = count, seed
        if count > len(self._between):
            raise ValueError(
                f'random_widths must be at most {len(self._between)}, as many networks as there are between the widths '
                f'{model.widths}, got {count}'
            )

    def draw(self, update: int) -> dict[int, list[Leaves]]:
        """Widths of one optimizer step, the same whenever it is asked for.

        Args:
            update: Number of the step.

        Returns:
            By the number of the next wider own width: contexts to run it in, in the place of `sliced_leaves`.
        """
        draws = np.random.default_rng([self._seed % 2**63, update])
        found: dict[int, list[Leaves]] = {}
        for index in draws.choice(self._between, self._count, replace=False).tolist():
            wider = next(own for own in self._own if own > index)
            leaves = partial(leaves_between, like=self._like, index=index, wider=wider)
            found.setdefault(self._own.index(wider), []).append(leaves)
        return found


def create_random_widths(model: nn.Module, count: int, seed: int) -> RandomWidths | None:
    """Those of a model that is to be trained, None for a `count` of 0.

    Raises:
        ValueError: The count is negative, or too large.
    """
    if count < 0:
        raise ValueError(f'random_widths must be at least 0, got {count}; 0 trains the own widths only')
    get_widths(model)
    return RandomWidths(unwrap_model(model), count, seed) if count else None
