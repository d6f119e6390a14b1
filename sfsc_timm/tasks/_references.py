"""What each width is shown of a batch, and what the full-width model makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..losses import Objective, Reference
from ..models import at_width
from ..models._heads import classify_fixed
from ._compose import compose
from ._outputs import embedding_of, evaluating

__all__ = ['divide', 'look_ahead', 'reference_of', 'shown']


def shown(
    images: Tensor, target: Tensor, widths: int, own_batches: bool, composed: float
) -> list[tuple[Tensor, Tensor]]:
    """The images and targets of every width, ascending; the smaller widths' end in images without a target.

    Args:
        images: (B, C, H, W); with `own_batches` (widths * B, C, H, W).
        target: Class indices or class probabilities, as many as images.
        widths: How many there are.
        own_batches: Whether each has a batch of its own.
        composed: How many images without a target are made of those that all widths share, as a share of them.
    """
    if own_batches:
        return divide(images, target, widths)
    count = round(composed * len(images))
    more = torch.cat([images, compose(images, count)]) if count else images
    return [(more, target)] * (widths - 1) + [(images, target)]


def divide(images: Tensor, target: Tensor, parts: int) -> list[tuple[Tensor, Tensor]]:
    """The images and targets of every width, ascending, from batches that lie one after the other.

    Args:
        images: (parts * B, C, H, W).
        target: Class indices (parts * B,) or class probabilities (parts * B, classes).
        parts: How many widths there are.

    Raises:
        ValueError: If the images cannot be divided.
    """
    if len(images) % parts:
        raise ValueError(
            f'input must hold a batch for each of {parts} widths with own_batches, all of the same size, got '
            f'{len(images)} images'
        )
    return list(zip(images.chunk(parts), target.chunk(parts), strict=True))


def reference_of(model: Any, embedding: Tensor) -> Reference:
    """A reference from a model's embedding (B, D) of the images that it has seen already."""
    return Reference(embedding, partial(classify_fixed, model.get_classifier()))


@torch.no_grad()
def refer(model: Any, images: Tensor) -> Reference:
    """What a model makes of images (B, C, H, W) at its active width."""
    return reference_of(model, embedding_of(model, images))


def look_ahead(
    model: Any, objective: Objective, reference: Any, batches: Sequence[Tensor], own_batches: bool
) -> list[Reference | None]:
    """What a full-width model that does not learn from them makes of every width's images, None where none does.

    Args:
        model: Slimmable model that is trained; where it is its own reference, the full width looks as it serves.
        objective: Whether there is a need.
        reference: Trained full-width model, None for the full width of `model` itself.
        batches: Images (B, C, H, W) of each width, ascending.
        own_batches: Whether they differ.
    """
    if not own_batches:
        if reference is None:
            return [None] * len(batches)
        seen = refer(reference, batches[0])  # the others' images are the first of these
        return [seen.first(len(images)) for images in batches]
    if reference is not None:
        return [refer(reference, images) for images in batches]
    if not objective.uses_reference:
        return [None] * len(batches)
    with at_width(model, model.widths[-1]), evaluating(model):
        return [*(refer(model, images) for images in batches[:-1]), None]
