"""When the best match of a query is none: a threshold at which strangers are let in at a rate that is chosen.

A stranger is someone of whom the gallery holds no image. How high strangers score is seen from images that are known to
be some: the gallery's own labelled items, each with all items of its identity left out, or images from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..evaluation.scores import Distance
from .store import Store

__all__ = ['Threshold', 'known_items', 'strangers_scores', 'threshold_of']

_NOBODY = ('', '-1', 'distractor')  # as manifests write images of no identity
_AT_ONCE = 256
_UNKNOWN, _ELSE = -1, -2


@dataclass(frozen=True)
class Threshold:
    """A score above which the best match of a query is believed.

    Attributes:
        rate: Share of strangers that are let in all the same, as it was asked for.
        score: Matches must score above it.
        strangers: On how many it was estimated.
    """

    rate: float
    score: float
    strangers: int


def threshold_of(scores: Tensor, rate: float) -> Threshold:
    """The threshold at which a share of strangers is let in.

    A new stranger scores above the n-th highest of N others with a probability of n / (N + 1).

    Args:
        scores: Best score of each stranger, `(N,)`.
        rate: False-accept rate, in (0, 1).

    Raises:
        ValueError: The rate is out of range, or too small to be told from so few strangers.
    """
    if not 0 < rate < 1:
        raise ValueError(f'--threshold must be a false-accept rate in (0, 1), such as 0.05, got {rate:g}')
    place = int(rate * (len(scores) + 1))
    if place < 1:
        least = 1 / (len(scores) + 1)
        raise ValueError(
            f'--threshold must be at least {least:.2g} with {len(scores)} known strangers, got {rate:g}; give more by '
            '--strangers, or label more items'
        )
    return Threshold(rate, float(scores.sort(descending=True).values[place - 1]), len(scores))


def known_items(identities: Sequence[str | None], most: int, seed: int = 0) -> list[int]:
    """Some items of known identity, in order, that stand for strangers.

    Args:
        identities: Of all items; None where it is not known.
        most: How many at most.
        seed: Of the choice.

    Raises:
        ValueError: Fewer than two identities are known: leaving one out would leave nobody.
    """
    known = [i for i, identity in enumerate(identities) if identity is not None and identity not in _NOBODY]
    if len({identities[i] for i in known}) < 2:
        raise ValueError(
            '--threshold needs to know who strangers are: no two identities of the gallery are known. Index it with '
            '--data, or with --identities folder; or give images of strangers by --strangers DIR'
        )
    chosen = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return [known[i] for i in chosen.tolist()]


def strangers_scores(query: Tensor, identities: Sequence[str], gallery: Store, distance: Distance = 'cosine') -> Tensor:
    """Best score of each query among the items that are not of its identity: what it scores as a stranger.

    Items of no known identity are left out, as they may be of the query's. Distractors of a data set count.

    Args:
        query: Embeddings of images of known identity, at the width of the queries to come, `(Nq, D)`.
        identities: Theirs.
        gallery: Read once, a part at a time.
        distance: 'cosine' or 'euclidean'.

    Returns:
        Shape `(Nq,)`.
    """
    numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
    of_query = torch.tensor([numbers[identity] for identity in identities])
    best = torch.full((len(query),), -torch.inf)
    for part in gallery.records():
        shown = part.labels.get('identity', [None] * len(part.paths))
        of_item = torch.tensor([_UNKNOWN if text is None else numbers.get(text, _ELSE) for text in shown])
        for begin in range(0, len(query), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            scores = _scores(query[some].float(), part.embeddings.float(), distance)
            scores[(of_query[some, None] == of_item) | (of_item == _UNKNOWN)] = -torch.inf
            best[some] = torch.maximum(best[some], scores.amax(1))
    return best


def _scores(query: Tensor, gallery: Tensor, distance: Distance) -> Tensor:
    if distance == 'cosine':
        return normalize(query, dim=1) @ normalize(gallery, dim=1).T
    return -torch.cdist(query, gallery)
