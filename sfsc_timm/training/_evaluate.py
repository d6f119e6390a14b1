"""The matrix of what is being trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..data import Batches, RetrievalData
from ..evaluation import CompatibilityMatrix, GroundTruth, compatibility_matrix, embed, model_cost
from ..models import Slimmable

__all__ = ['Split', 'evaluate_models']

Split = tuple[RetrievalData, Batches, Batches]


def evaluate_models(models: Mapping[float, Any], split: Split, device: torch.device) -> CompatibilityMatrix:
    """Every query width against every gallery width.

    Args:
        models: By width, a network of that width, or the slimmable model that has it.
        split: Data set with the batches of its queries and of its gallery.
        device: Where the models are.
    """
    data, query, gallery = split
    sides: list[dict[float, torch.Tensor]] = [{}, {}]
    costs = {}
    size = None
    for model, widths in _by_model(models):
        with _evaluation(model):
            for side, loader in zip(sides, (query,) if data.shared else (query, gallery), strict=False):
                found = embed(model, loader, [w for w, _ in widths], device=device)
                side.update({stands: found[own] for own, stands in widths})
            size = size or _size(query)
            for own, stands in widths:
                costs[stands] = model_cost(model.extract(own), size)
    if data.shared:
        sides[1] = sides[0]
    readable = [len(side[next(iter(side))]) for side in sides]
    if readable != [len(data.query), len(data.gallery)]:
        data = _readable(data, query, gallery)
    order = sorted(models)
    return compatibility_matrix(
        {w: sides[0][w] for w in order},
        {w: sides[1][w] for w in order},
        GroundTruth.of(data),
        ks=data.ks,
        params={w: costs[w].params for w in order},
        flops={w: costs[w].flops for w in order},
        info={'data': data.name},
    )


def _by_model(models: Mapping[float, Slimmable]) -> list[tuple[Slimmable, list[tuple[float, float]]]]:
    """Each model once, with its own widths and what they stand for: a lone network is its own full width."""
    found: dict[int, tuple[Slimmable, list[tuple[float, float]]]] = {}
    for width, model in models.items():
        own = width if width in model.widths else 1.0
        found.setdefault(id(model), (model, []))[1].append((own, width))
    return list(found.values())


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _size(loader: Batches) -> tuple[int, int, int]:
    channels, height, width = next(iter(loader)).images.shape[1:]
    return int(channels), int(height), int(width)


def _readable(data: RetrievalData, query: Batches, gallery: Batches) -> RetrievalData:
    """The data without the images that could not be read."""
    from dataclasses import replace

    kept = [[s for i, s in enumerate(b.samples) if i not in b.skipped] for b in (query, gallery)]
    return replace(data, query=kept[0], gallery=kept[1])
