"""Logits and embedding of one forward, in training or in its midst."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.utils import unwrap_model
from torch import Tensor, nn

__all__ = ['embedding_of', 'evaluating', 'run_with_embedding']


def run_with_embedding(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a slimmable model, wrapped for several processes or not, and keeps what its classifier is given.

    Args:
        module: The model; not compiled, since a graph gives its output only.
        images: (B, C, H, W).

    Returns:
        Logits (B, classes) and embedding (B, D).
    """
    seen: list[Tensor] = []
    model: Any = unwrap_model(module)
    hook = model.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = module(images)
    finally:
        hook.remove()
    return logits, seen[0]


def embedding_of(model: Any, images: Tensor) -> Tensor:
    """Embedding (B, D) of images (B, C, H, W) by a slimmable model, at its active width."""
    embedding: Tensor = model.embed(images)
    return embedding


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Has `model` in evaluation for the length of a `with` block; every module then gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
