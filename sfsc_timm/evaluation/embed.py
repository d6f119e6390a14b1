"""Embeddings of a set of images at several widths, each image decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class SlimmableModel(Protocol):
    """What :func:`embed` and :func:`evaluate` need of a model: any `sfsc_*` model has it."""

    training: bool

    @property
    def widths(self) -> Sequence[float]:
        """All widths."""

    def at_width(self, width: float) -> AbstractContextManager[Any]:
        """Context in which the model runs at `width`."""

    def embed(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to embeddings `(B, D)` at the active width."""

    def extract(self, width: float, *, dim: int | None = None) -> nn.Module:
        """The dense model of one width, by which costs are measured; `dim` is given where sizes are compared."""

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation mode."""


@torch.no_grad()  # not inference_mode: a model may keep weights that it prepares here, and train later
def embed(
    model: SlimmableModel,
    batches: Iterable[Tensor | Sequence[Any]],
    widths: Sequence[float] | None = None,
    *,
    device: torch.device | str = 'cpu',
    flip: bool = False,
) -> dict[float, Tensor]:
    """Embed every image at every width.

    Batches are read once, and all widths run on each before the next is read. The model runs in evaluation mode and
    is left in the mode in which it was found. Embeddings are not normalised: that belongs to the metric.

    Args:
        model: The slimmable model, already on `device`.
        batches: Images `(B, C, H, W)`, or tuples whose first entry they are (a DataLoader).
        widths: Widths to run; None runs all of the model's.
        device: Where the model lies.
        flip: Average the embedding with that of the horizontally mirrored image (test-time flip).

    Returns:
        Width to embeddings `(N, D)`, float32, on the CPU, in the order of `batches`.

    Raises:
        ValueError: An unknown width, or no images at all.
    """
    widths = tuple(model.widths if widths is None else widths)
    if not widths or not set(widths) <= set(model.widths):
        raise ValueError(f"widths must be among the model's {tuple(model.widths)}, got {widths}.")
    parts: dict[float, list[Tensor]] = {width: [] for width in widths}
    was_training = model.training
    model.train(False)
    try:
        for batch in batches:
            images = (batch if isinstance(batch, Tensor) else batch[0]).to(device, non_blocking=True)
            for width in widths:
                with model.at_width(width):
                    parts[width].append(_embed_batch(model, images, flip))
    finally:
        model.train(was_training)
    if not parts[widths[0]]:
        raise ValueError('batches is empty: there are no images to embed. A generator can be read only once.')
    return {width: torch.cat(outputs) for width, outputs in parts.items()}


def _embed_batch(model: SlimmableModel, images: Tensor, flip: bool) -> Tensor:
    embedding = model.embed(images)
    if flip:
        embedding = (embedding + model.embed(images.flip(-1))) / 2
    if embedding.ndim != 2:
        raise ValueError(
            f'the model returned embeddings of shape {tuple(embedding.shape)}, expected (B, D); create it with '
            'a pooling layer (global_pool) and embed_dim > 0.'
        )
    return embedding.float().cpu()
