"""Whether a query shows anyone of the gallery at all: the options of `search --threshold`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..retrieval import Gallery, Store, Threshold, known_items, strangers_scores, threshold_of

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 2000  # strangers that are embedded


def add_threshold_arguments(group: Any) -> None:
    """Adds what says when a match is none."""
    group.add_argument(
        '--threshold', type=float, metavar='FAR',
        help='say "not in the gallery" where the best match is not above a score that this share of strangers reaches, '
        'in (0, 1); estimated on labelled items of the gallery, whose files are embedded as the queries are',
    )  # fmt: skip
    group.add_argument(
        '--strangers', type=Path, metavar='DIR', help='images of which the gallery holds nobody, to estimate that on'
    )


def check_threshold(args: argparse.Namespace) -> None:
    """Refuses what cannot be, before any work.

    Raises:
        ValueError: A rate out of range, strangers without one, or several images of one query.
    """
    if args.threshold is None:
        if args.strangers is not None:
            raise ValueError('--strangers is for --threshold FAR, got none; give one, or leave it out')
        return
    if not 0 < args.threshold < 1:
        raise ValueError(f'--threshold must be a false-accept rate in (0, 1), such as 0.05, got {args.threshold:g}')
    if args.fuse is not None:
        raise ValueError('--threshold is of one image, got --fuse, whose scores are others; leave one of them out')


def find_threshold(
    gallery: Store,
    files: Callable[[list[Path]], list[Path]],
    embedded: Callable[[list[Path]], tuple[Tensor, list[Path]]],
    best: Callable[[Tensor], Tensor],
    args: argparse.Namespace,
) -> Threshold | None:
    """The threshold that was asked for; None where none was.

    Args:
        gallery: That is searched.
        files: The images in folders.
        embedded: Embeds images as queries, and says of which it could.
        best: Best score of each embedding in the gallery.
        args: The command's.

    Raises:
        ValueError: The gallery is not labelled, its files are gone, or there are too few strangers.
    """
    if args.threshold is None:
        return None
    if args.strangers is not None:
        embeddings, _ = embedded(files([args.strangers])[:_MOST])
        return threshold_of(best(embeddings), args.threshold)
    identities = _identities(gallery)
    paths = [path for path, _ in gallery.files()]
    chosen = [(Path(paths[i]), str(identities[i])) for i in known_items(identities, _MOST)]
    there = {path: identity for path, identity in chosen if path.is_file()}
    if len(set(there.values())) < 2:
        raise ValueError(
            f"--threshold embeds the gallery's labelled images as queries, got {len(there)} of {len(chosen)} that are "
            'still there; give images of strangers by --strangers DIR'
        )
    embeddings, read = embedded(list(there))
    return threshold_of(
        strangers_scores(embeddings, [there[path] for path in read], gallery, args.distance), args.threshold
    )


def _identities(gallery: Store) -> list[str | None]:
    if isinstance(gallery, Gallery):
        return list(gallery.identities)
    return [text for part in gallery.records() for text in part.labels.get('identity', [None] * len(part.paths))]
