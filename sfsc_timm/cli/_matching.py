"""How `search` finds the matches of queries, and how it shows them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..retrieval import (
    Gallery,
    LanceGallery,
    Shortlist,
    Store,
    Threshold,
    best_of,
    indexed,
    mean_of,
    recall_of,
    search,
)
from ._options import whole_number
from ._terminal import visible

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from ..checkpoints import Checkpoint

Ranking = list[tuple[str, float]]


@dataclass(frozen=True)
class Answer:
    """What was found for one query.

    Attributes:
        images: The query's, one unless several are fused.
        matches: Paths and scores, best first.
    """

    images: tuple[Path, ...]
    matches: Ranking

    def is_known(self, threshold: Threshold | None) -> bool:
        """Whether the best match is believed."""
        return threshold is None or (bool(self.matches) and self.matches[0][1] > threshold.score)


def add_matching_arguments(group: Any) -> None:
    """Adds what says how items are compared."""
    group.add_argument(
        '--shortlist', type=whole_number(1), metavar='N',
        help='compare all items by less, and the nearest N of these in full (every item; of binary galleries 100)',
    )  # fmt: skip
    group.add_argument(
        '--short', type=whole_number(1), metavar='D',
        help='make the shortlist by the first D numbers, a size that was trained, in place of a bit of each number',
    )  # fmt: skip
    group.add_argument('--measure-recall', action='store_true', help='compare with every item, too, and say recall@k')
    group.add_argument(
        '--fuse', choices=('mean', 'best'),
        help='take all images as one query: the mean of their embeddings, or each match by its best score',
    )  # fmt: skip


def check_matching(checkpoint: Checkpoint, gallery: Store, args: argparse.Namespace) -> None:
    """Refuses a shortlist that does not fit.

    Raises:
        ValueError: It is by numbers that are no embedding, or of a store or an index that makes its own.
    """
    if args.short is not None and args.shortlist is None:
        raise ValueError('--short is for --shortlist N, got none; give one, or leave it out')
    if args.shortlist is None:
        return
    if args.faiss or not isinstance(gallery, Gallery):
        got = '--faiss' if args.faiss else 'a Lance gallery'
        raise ValueError(f'--shortlist is for safetensors galleries that are searched without an index, got {got}')
    sizes = [size for size in checkpoint.embed_dims if size < gallery.info.embed_dim]
    if args.short is not None and args.short not in sizes:
        raise ValueError(
            f'--short must be one of the sizes that were trained, {tuple(sizes)}, got {args.short}; leave it out to go '
            'by a bit of each number'
        )


def find_matches(
    queries: Tensor, files: Sequence[Path], gallery: Store, args: argparse.Namespace
) -> tuple[list[Answer], float | None]:
    """What was found, and, if that was asked for, recall@k of it against the comparison with every item."""
    images = [(file,) for file in files] if args.fuse is None else [tuple(files)]
    found = _fused(queries, gallery, args)
    recall = recall_of(found, _fused(queries, gallery, args, exact=True)) if args.measure_recall else None
    return [Answer(*pair) for pair in zip(images, found, strict=True)], recall


def _fused(queries: Tensor, gallery: Store, args: argparse.Namespace, exact: bool = False) -> list[Ranking]:
    find = _every if exact else nearest
    if args.fuse == 'mean':
        return find(mean_of(queries, args.distance), gallery, args)
    found = find(queries, gallery, args)
    return [best_of(found, args.k)] if args.fuse == 'best' else found


def nearest(queries: Tensor, gallery: Store, args: argparse.Namespace) -> list[Ranking]:
    """Paths and scores of the matches of each query, best first."""
    k = min(args.k, len(gallery))
    if isinstance(gallery, LanceGallery):
        if args.faiss:
            raise ValueError('--faiss is for safetensors galleries, got a Lance gallery, which has an index of its own')
        return gallery.search(queries, k, distance=args.distance, where=args.where, exact=args.exact)
    if not isinstance(gallery, Gallery):
        return gallery.search(queries, k, distance=args.distance, where=args.where)
    if not args.faiss:
        shortlist = None if args.shortlist is None else Shortlist(args.shortlist, args.short or 'binary')
        return gallery.search(queries, k, distance=args.distance, where=args.where, shortlist=shortlist)
    if args.where is not None:
        gallery.blocks(args.where)  # which it refuses
    scores, items = indexed(gallery, args.distance).search(queries, k)
    return _named(gallery, scores, items)


def _every(queries: Tensor, gallery: Store, args: argparse.Namespace) -> list[Ranking]:
    k = min(args.k, len(gallery))
    if isinstance(gallery, LanceGallery):
        return gallery.search(queries, k, distance=args.distance, where=args.where, exact=True)
    if isinstance(gallery, Gallery):
        return _named(gallery, *search(queries, gallery.embeddings(), k, distance=args.distance))
    return gallery.search(queries, k, distance=args.distance, where=args.where)


def _named(gallery: Gallery, scores: Tensor, items: Tensor) -> list[Ranking]:
    paths = gallery.paths
    return [
        [(paths[item], score) for item, score in zip(row, values, strict=True) if item >= 0]
        for row, values in zip(items.tolist(), scores.tolist(), strict=True)
    ]


def to_json(answers: Sequence[Answer], threshold: Threshold | None) -> list[dict[str, Any]]:
    """The answers for `--json`; with a threshold, the matches above it, and whether there are any."""
    result: list[dict[str, Any]] = []
    for answer in answers:
        images = [str(image) for image in answer.images]
        believed = [pair for pair in answer.matches if threshold is None or pair[1] > threshold.score]
        entry: dict[str, Any] = {'query': images[0] if len(images) == 1 else images}
        if threshold is not None:
            best = [{'path': path, 'score': score} for path, score in answer.matches[:1]]
            entry |= {'in_gallery': answer.is_known(threshold), 'best': best[0] if best else None}
        result.append({**entry, 'matches': [{'path': path, 'score': score} for path, score in believed]})
    return result


def show(answers: Sequence[Answer], threshold: Threshold | None, recall: float | None, terminal: Console) -> None:
    """Prints the answers for people."""
    if threshold is not None:
        terminal.print(
            f'matches score above {threshold.score:.4f}, as {threshold.rate:.1%} of strangers do '
            f'(by {threshold.strangers} of them)', soft_wrap=True,
        )  # fmt: skip
    for answer in answers:
        for image in answer.images:
            terminal.print(visible(str(image), keep=''), style='bold', soft_wrap=True)
        if not answer.is_known(threshold):
            scores = [f'; the nearest of it scores {score:.4f}' for _, score in answer.matches[:1]]
            terminal.print('  not in the gallery' + ''.join(scores), soft_wrap=True)
            continue
        for path, score in answer.matches:
            if threshold is None or score > threshold.score:
                terminal.print(f'  {score:7.4f}  {visible(path, keep="")}', soft_wrap=True)
    if recall is not None:
        terminal.print(f'recall@k against every item: {recall:.3f}', soft_wrap=True)
