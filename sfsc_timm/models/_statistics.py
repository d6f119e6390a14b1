"""Running statistics of batch norms estimated anew, at the widths that need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._private import BatchNormBase
from ._widths import at_width

if TYPE_CHECKING:
    from ._slimmable import Slimmable

__all__ = ['estimate_statistics']


@torch.no_grad()
def estimate_statistics(model: Slimmable, batches: Iterable[Tensor], widths: Sequence[float] | None = None) -> None:
    """Estimates the statistics by which a width's batch norms normalise, on unlabelled images, in place.

    Each becomes the mean over the batches of what they see, all images counting alike. A width that was added to a
    trained model needs it, and one whose weights were averaged or changed; layers that normalise each image by itself
    have nothing to estimate. The other widths, all parameters, the active width and the modes stay.

    Args:
        model: The slimmable model.
        batches: Images (B, C, H, W) as the model takes them, in an order without meaning, B at least 2 (smaller ones
            are passed over) and better a hundred; a thousand images are good.
        widths: Which widths (None: the active one).

    Raises:
        ValueError: A width is unknown, or there is no batch of at least two images.
    """
    widths = (model.width,) if widths is None else tuple(widths)
    for width in widths:
        with at_width(model, width):
            pass  # an unknown one is told before anything is reset
    norms: list[Any] = [m for m in model.modules() if isinstance(m, BatchNormBase) and m.running_mean is not None]
    device = next(model.parameters()).device
    seen = 0
    with _counting(model, norms):
        for batch in batches:
            if len(batch) < 2:
                continue
            if not seen:
                _reset(model, norms, widths)
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen
            for width in widths:
                with at_width(model, width):
                    model.embed(batch.to(device))
    if not seen:
        raise ValueError('batches must hold a batch of at least 2 images, got none; a thousand images are good')
    model.refresh()


def _reset(model: Slimmable, norms: Iterable[Any], widths: Sequence[float]) -> None:
    for width in widths:
        with at_width(model, width):
            for norm in norms:
                norm.reset_running_stats()


@contextmanager
def _counting(model: nn.Module, norms: Sequence[Any]) -> Iterator[None]:
    """Has the norms, and nothing else, in training for the length of a `with` block."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
