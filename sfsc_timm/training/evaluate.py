"""The matrix of what is being trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..data import Batches, RetrievalData
from ..evaluation import CompatibilityMatrix, GroundTruth, compatibility_matrix, embed, model_cost
from ..models import Slimmable

__all__ = ['Split', 'evaluate_models', 'with_costs']

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
    for model, widths in _by_model(models):
        for side, loader in zip(sides, (query,) if data.shared else (query, gallery), strict=False):
            found = embed(model, loader, [own for own, _ in widths], device=device)
            side.update({stands: found[own] for own, stands in widths})
    if data.shared:
        sides[1] = sides[0]
    if [len(next(iter(side.values()))) for side in sides] != [len(data.query), len(data.gallery)]:
        data = _readable(data, query, gallery)
    order = sorted(models)
    return compatibility_matrix(
        {w: sides[0][w] for w in order},
        {w: sides[1][w] for w in order},
        GroundTruth.of(data),
        ks=data.ks,
        info={'data': data.name},
    )


def with_costs(
    matrix: CompatibilityMatrix, models: Mapping[float, Any], input_size: tuple[int, int, int]
) -> CompatibilityMatrix:
    """The matrix with parameters and multiply-adds of every width, for one image (C, H, W)."""
    found = {
        stands: model_cost(model.extract(own), input_size)
        for model, widths in _by_model(models)
        for own, stands in widths
    }
    costs = [found[width] for width in matrix.widths]
    return replace(matrix, params=tuple(c.params for c in costs), macs=tuple(c.macs for c in costs))


def _by_model(models: Mapping[float, Slimmable]) -> list[tuple[Slimmable, list[tuple[float, float]]]]:
    """Each model once, with its own widths and what they stand for: a lone network is its own full width."""
    found: dict[int, tuple[Slimmable, list[tuple[float, float]]]] = {}
    for width, model in models.items():
        own = width if width in model.widths else 1.0
        found.setdefault(id(model), (model, []))[1].append((own, width))
    return list(found.values())


def _readable(data: RetrievalData, query: Batches, gallery: Batches) -> RetrievalData:
    """The data without the images that could not be read."""
    kept = [[s for i, s in enumerate(b.samples) if i not in b.skipped] for b in (query, gallery)]
    return replace(data, query=kept[0], gallery=kept[1])
