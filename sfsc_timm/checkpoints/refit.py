"""A narrow width's neck fitted again, in closed form, to the user's own images, which need no labels.

The widths share one neck, whose columns a narrow width uses the leading ones of. On images that training has not seen,
a linear map from that width's features to the embeddings of φ, fitted on such images, agrees better with φ. Where it
does is measured on images that were not fitted, and what does not gain is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import Slimmable
from .identity import compatibility_id, space_id
from .save import save_width, width_name

__all__ = ['Refit', 'refit', 'save_refitted']

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FEWEST = 50
_NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Refit:
    """A width's new neck, and what it gains on images that it was not fitted to.

    Attributes:
        width: The width.
        weight: Of the linear map from pooled features to the embedding, (embed_dim, features).
        bias: (embed_dim,).
        agreement: Mean cosine between this width's embedding of an image and φ's: before, and after.
        neighbours: Share, in [0, 1], of φ's ten nearest other images of an image that this width, as a query among
            φ's embeddings of all, finds among its own ten: before, and after.
    """

    width: float
    weight: Tensor
    bias: Tensor
    agreement: tuple[float, float]
    neighbours: tuple[float, float]

    @property
    def gains(self) -> bool:
        """Whether it agrees better with φ and finds no fewer of its neighbours."""
        return self.agreement[1] > self.agreement[0] and self.neighbours[1] >= self.neighbours[0]


class _Map(NamedTuple):
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


@torch.no_grad()
def refit(
    model: Slimmable, batches: Iterable[Tensor], widths: Sequence[float] | None = None, *, seed: int = 0
) -> list[Refit]:
    """Fits the necks of narrow widths to φ's embeddings of unlabelled images, by ridge regression.

    Of widths that were trained, it helps where the images are of what is searched for: a gallery's own ones; on others
    it gains less, or nothing. Widths that were never trained, which start as slices of pretrained weights, gain much on
    any photographs, most of all after `sort_channels`.

    Three fifths of the images are fitted, one fifth chooses the strength of the ridge, and the rest measures; the neck
    that is returned is fitted to all of them.

    Args:
        model: The slimmable model. It stays as it is.
        batches: Images (B, C, H, W) as the model takes them, at least 50, better a thousand.
        widths: Which widths (None: all below 1.0).
        seed: Of the division.

    Returns:
        For each width its new neck and what it gains.

    Raises:
        ValueError: A width is unknown or is 1.0, the model has no neck, or there are too few images.
    """
    widths = model.widths[:-1] if widths is None else tuple(widths)
    if not model.embed_dim:
        raise ValueError('model must have a neck to be fitted again, got embed_dim=0')
    if not widths or not set(widths) <= set(model.widths[:-1]):
        raise ValueError(
            f'widths must be among {model.widths[:-1]}, got {widths}; 1.0 is what the others are fitted to'
        )
    parts: dict[float, Any] = {width: model.extract(width) for width in (*widths, 1.0)}
    own = _features(parts, batches)
    count = len(own[1.0])
    if count < _FEWEST:
        raise ValueError(
            f'there must be at least {_FEWEST} images to fit and to measure on, got {count}; a thousand is good'
        )
    targets = _neck_of(parts[1.0])(own[1.0])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return [_refit(width, _neck_of(parts[width]), own[width], targets, order) for width in widths]


def save_refitted(
    model: Slimmable, refits: Iterable[Refit], directory: str | Path, **options: Any
) -> dict[float, Path]:
    """Saves every width in a folder of its own, as `save_widths` does, with the new necks that gain.

    All folders declare the metric space of `model`, so that galleries embedded by its φ can be searched as before.

    Args:
        model: The slimmable model that was fitted.
        refits: What `refit` returned.
        directory: Where to put the folders.
        **options: As for `save_width`.

    Returns:
        The folder of each width.
    """
    gaining = {result.width: result for result in refits if result.gains}
    options = {'compatibility': compatibility_id(model), 'space': space_id(model), **options}
    return {
        width: save_width(
            _with_neck(model, gaining[width]) if width in gaining else model,
            width,
            Path(directory) / width_name(width),
            **options,
        )
        for width in model.widths
    }


def _features(parts: dict[float, Any], batches: Iterable[Tensor]) -> dict[float, Tensor]:
    """Pooled features (N, features) of all images, by width."""
    device = next(parts[1.0].parameters()).device
    found: dict[float, list[Tensor]] = {width: [] for width in parts}
    for batch in batches:
        images = batch.to(device)
        for width, dense in parts.items():
            found[width].append(dense.forward_head(dense.forward_features(images), pre_logits=True).double().cpu())
    return {width: torch.cat(features) if features else torch.empty(0) for width, features in found.items()}


def _refit(width: float, neck: _Map, own: Tensor, targets: Tensor, order: Tensor) -> Refit:
    first, second = len(order) * 3 // 5, len(order) * 4 // 5
    fitted, chosen, measured = order[:first], order[first:second], order[second:]
    tried = {
        strength: _agreement(_fit(neck, own[fitted], targets[fitted], strength)(own[chosen]), targets[chosen])
        for strength in _STRENGTHS
    }
    strength = max(tried, key=lambda key: tried[key])
    new = _fit(neck, own[fitted], targets[fitted], strength)
    agreement, neighbours = [], []
    for way in (neck, new):
        agreement.append(_agreement(way(own[measured]), targets[measured]))
        neighbours.append(_shared_neighbours(way(own[measured]), targets, measured))
    final = _fit(neck, own, targets, strength)
    return Refit(width, final.weight, final.bias, (agreement[0], agreement[1]), (neighbours[0], neighbours[1]))


def _fit(neck: _Map, features: Tensor, targets: Tensor, strength: float) -> _Map:
    """The map that minimises Σ |W x + b - y|² / |y|² + λ |W - W₀|².

    All directions count alike, and few images leave the neck as it is.
    """
    scale = 1 / targets.norm(dim=1, keepdim=True).clamp_min(1e-12)
    inputs = torch.cat([features, torch.ones_like(scale)], 1) * scale
    gram = inputs.T @ inputs
    ridge = gram.diagonal()[:-1].mean() * strength
    penalty = torch.full_like(gram.diagonal(), float(ridge))
    penalty[-1] = 1e-9 * gram[-1, -1]  # the bias is free
    change = torch.linalg.solve(gram + penalty.diag(), inputs.T @ ((targets - neck(features)) * scale))
    return _Map(neck.weight + change[:-1].T, neck.bias + change[-1])


def _agreement(found: Tensor, targets: Tensor) -> float:
    return float(F.cosine_similarity(found, targets, dim=1).mean())


def _shared_neighbours(queries: Tensor, gallery: Tensor, places: Tensor) -> float:
    """Share of the images nearest to φ's embedding of an image that are as near to the query, the image left out.

    Args:
        queries: Embeddings (Q, D) of some images at a narrow width.
        gallery: φ's of all images, (N, D).
        places: Where those of the queries are among them, (Q,).
    """
    count = min(_NEIGHBOURS, len(gallery) - 1)
    nearest = []
    for embedding in (queries, gallery[places]):
        scores = F.normalize(embedding, dim=1) @ F.normalize(gallery, dim=1).T
        nearest.append(scores.scatter(1, places[:, None], -torch.inf).topk(count).indices)
    return float((nearest[0][:, :, None] == nearest[1][:, None]).any(2).double().mean())


def _neck_of(dense: nn.Module) -> _Map:
    """The folded neck of a dense model."""
    layer: Any = dense.get_classifier()  # type: ignore[operator]
    return _Map(layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu())


def _with_neck(model: Slimmable, result: Refit) -> Slimmable:
    """A copy of the model that has the new neck at one width, and is of no use at the others."""
    copied = deepcopy(model).eval()
    with torch.no_grad(), copied.at_width(result.width):
        neck: Any = copied.neck
        neck.proj.weight.copy_(result.weight)
        if hasattr(neck, 'bn'):
            neck.bn.running_mean.zero_()
            neck.bn.running_var.fill_(1 - neck.bn.eps)  # so that it divides by 1
            neck.bn.weight.fill_(1)
            neck.bn.bias.copy_(result.bias)
        else:
            neck.proj.bias.copy_(result.bias)
    copied.refresh()
    return copied
