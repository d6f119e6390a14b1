"""Evaluating models on a benchmark: every query sub-model against every gallery sub-model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .cost import Cost, bytes_per_item, latency, model_cost
from .embed import SlimmableModel, embed
from .ground_truth import GroundTruth
from .matrix import CompatibilityMatrix, matrix_of, paper_name
from .rerank import KReciprocal
from .scores import Distance
from .sizes import with_sizes

if TYPE_CHECKING:
    from ..data import Batch, RetrievalData

__all__ = ['Embedder', 'evaluate']


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model with the images that it is to embed.

    Attributes:
        model: The model, on the device of the evaluation.
        query: Batches of the benchmark's queries, prepared for it; each image's place among them in `indices`.
        gallery: Those of the gallery; not read where a benchmark's query and gallery are one list.
        widths: Which take part; None for all of the model's.
        label: What the names of its sub-models begin with, such as 'A ', where two models meet.
        input_size: (C, H, W) of an image, by which its sub-models' costs are counted; None counts none.
    """

    model: SlimmableModel
    query: Iterable[Batch]
    gallery: Iterable[Batch]
    widths: Sequence[float] | None = None
    label: str = ''
    input_size: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class _SubModel:
    """One row and column of the matrix: embeddings (Nq, D) and (Ng, D), and what an image costs, as far as counted."""

    name: str
    width: float
    queries: Tensor
    gallery: Tensor
    costs: Mapping[int | None, Cost]  # by size, None for the whole embedding
    seconds: float | None


def evaluate(
    query_model: Embedder,
    gallery_model: Embedder | None,
    data: RetrievalData,
    *,
    device: torch.device | str = 'cpu',
    flip: bool = False,
    distance: Distance = 'cosine',
    rerank: KReciprocal | None = None,
    timed: bool = False,
    dims: Sequence[int] | None = None,
) -> CompatibilityMatrix:
    """Embeds a benchmark at every width and evaluates all pairs of sub-models, by the benchmark's own protocol.

    Args:
        query_model: What embeds the queries.
        gallery_model: What embeds the gallery, if it is another model. The sub-models of both then stand in rows and
            in columns, since each pair is judged by its self-tests.
        data: The benchmark. Of its images, those that the batches left out as unreadable take no part.
        device: Where the models lie.
        flip: Average each embedding with that of the mirrored image.
        distance: 'cosine' or 'euclidean'.
        rerank: Re-rank by k-reciprocal neighbours first; None ranks by the distance itself.
        timed: Measure the latency of each sub-model, too, where its cost is counted.
        dims: Embedding sizes to evaluate, each by the first numbers of the same embeddings; None for all numbers.

    Returns:
        The matrix, in percent, the cheapest sub-model first (the narrowest, where no costs are counted). Its `info`
        names the data, and has `latency_ms` and `bytes_per_item` if it was timed. With `dims` it is that of the
        largest, and `by_size` gives all.

    Raises:
        ValueError: An unknown width, a benchmark without a readable match, sizes that the embeddings do not have, or
            models whose embeddings differ in size.
    """
    found: list[_SubModel] = []
    for embedder in (query_model,) if gallery_model is None else (query_model, gallery_model):
        members, readable = _embed(embedder, data, device, flip, timed, dims or ())
        found += members
    found.sort(key=lambda one: (one.costs[None].macs if one.costs else one.width, one.name))
    options: dict[str, Any] = {'ks': data.ks, 'distance': distance, 'rerank': rerank}
    options['info'] = {'data': data.name}
    if timed:
        options['info']['latency_ms'] = [None if one.seconds is None else 1000 * one.seconds for one in found]
    truth = GroundTruth.of(readable)
    if dims is None:
        return _matrix(found, truth, None, timed, options)
    return with_sizes({dim: _matrix(found, truth, dim, timed, options) for dim in dims})


def _matrix(
    found: Sequence[_SubModel], truth: GroundTruth, dim: int | None, timed: bool, options: dict[str, Any]
) -> CompatibilityMatrix:
    """The matrix of all pairs by the first `dim` numbers of their embeddings, None for all numbers."""
    costs = [one.costs[dim] for one in found if one.costs]
    sizes = [one.gallery.shape[1] if dim is None else dim for one in found]
    info = {**options['info'], **({'bytes_per_item': [bytes_per_item(size) for size in sizes]} if timed else {})}
    return matrix_of(
        [one.width for one in found],
        [one.queries[:, :dim] for one in found],
        [one.gallery[:, :dim] for one in found],
        truth,
        names=[one.name for one in found],
        params=[cost.params for cost in costs] or None,
        macs=[cost.macs for cost in costs] or None,
        **{**options, 'info': info},
    )


def _embed(
    embedder: Embedder,
    data: RetrievalData,
    device: torch.device | str,
    flip: bool,
    timed: bool,
    dims: Sequence[int],
) -> tuple[list[_SubModel], RetrievalData]:
    """The sub-models with their embeddings, and the data without the images that could not be read."""
    widths = tuple(embedder.model.widths if embedder.widths is None else embedder.widths)
    sides, places = [], []
    for batches in (embedder.query,) if data.shared else (embedder.query, embedder.gallery):
        kept: list[int] = []
        sides.append(embed(embedder.model, _images(batches, kept), widths, device=device, flip=flip))
        places.append(kept)
        whole = sides[-1][widths[0]].shape[1]
        if not all(1 <= dim <= whole for dim in dims):
            raise ValueError(f'dims must be from 1 to {whole}, the numbers of an embedding, got {tuple(dims)}.')
    if list(map(len, places)) != [len(data.query), len(data.gallery)][: len(places)]:
        query = [data.query[i] for i in places[0]]
        data = replace(data, query=query, gallery=query if data.shared else [data.gallery[i] for i in places[1]])
    members = [
        _SubModel(
            embedder.label + paper_name(width),
            width,
            sides[0][width],
            sides[-1][width],
            *_costs(embedder, width, device, timed, dims),
        )
        for width in widths
    ]
    return members, data


def _images(batches: Iterable[Batch], kept: list[int]) -> Iterator[Tensor]:
    """The images of the batches, noting the place of each."""
    for batch in batches:
        kept.extend(batch.indices.tolist())
        yield batch.images


def _costs(
    embedder: Embedder, width: float, device: torch.device | str, timed: bool, dims: Sequence[int]
) -> tuple[dict[int | None, Cost], float | None]:
    """What an image costs at a width, whole and at each size, and how many seconds it takes."""
    size = embedder.input_size
    if size is None:
        return {}, None
    dense = embedder.model.extract(width).eval()
    seconds = latency(dense, torch.zeros(1, *size, device=device)) if timed else None
    costs: dict[int | None, Cost] = {dim: model_cost(embedder.model.extract(width, dim=dim), size) for dim in dims}
    return {None: model_cost(dense, size), **costs}, seconds
