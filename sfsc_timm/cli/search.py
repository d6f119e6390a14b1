"""Searches a gallery that `sfsc-timm index` made, with queries embedded at any width of the same model.

  sfsc-timm search gallery query.jpg --checkpoint quickstart --width 0.25
  sfsc-timm search gallery query.jpg other.jpg -k 5 --checkpoint w0.25 --contact-sheet matches.png
  sfsc-timm search gallery queries/ --checkpoint w0.25 --json > matches.json

The gallery remembers the metric space it was embedded in, and how its images were prepared. Queries are prepared in the
same way; options that ask for another one, and checkpoints of another space, are refused unless --force. Queries of a
checkpoint of several embedding sizes are cut to the size of the gallery (`sfsc-timm index --dim`).

--shortlist N compares all items by less, a bit of each number or the first numbers of a model of several embedding
sizes (--short), and the nearest N of these in full. --threshold FAR answers "not in the gallery" where no item is near
enough: a share FAR of strangers is let in. The gallery must be labelled (`sfsc-timm index --data`, or --identities), or
strangers be given. The estimate is of strangers like those images, and of a model that has learned neither.

"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from ..data import Sample
from ..evaluation import Match, embed, plot_contact_sheet
from ..retrieval import IncompatibleGalleryError, Preparation, Store, open_gallery, query_size
from ._known import add_threshold_arguments, check_threshold, find_threshold
from ._matching import Answer, add_matching_arguments, check_matching, find_matches, nearest, show, to_json
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_error_argument,
    asked_preprocessing,
    embed_dim,
    load_model,
    location,
    serve,
    track,
)
from ._terminal import console

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoints import Checkpoint

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument('gallery', type=location, metavar='GALLERY', help='folder of the gallery, or s3://... of Lance')
    parser.add_argument('images', type=Path, nargs='+', metavar='IMAGE', help='query images, or folders of them')
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group('search')
    group.add_argument(
        '--width', type=float, metavar='W', help="width that embeds the queries (the checkpoint's narrowest)"
    )
    group.add_argument(
        '-k', type=int, default=10, metavar='K', help='matches to show of each query (>= 1; %(default)s)'
    )
    group.add_argument(
        '--distance', choices=('cosine', 'euclidean'), default='cosine', help='how embeddings compare (%(default)s)'
    )
    add_error_argument(group)
    group.add_argument('--faiss', action='store_true', help='search an approximate index, kept in the gallery')
    group.add_argument(
        '--where', metavar='CONDITION', help='search among items of a Lance gallery such as "camera = 3" only'
    )
    group.add_argument('--exact', action='store_true', help="compare with every item, past a Lance gallery's index")
    group.add_argument('--root', metavar='DIR', help="where the root of a Lance gallery's paths lies on this machine")
    add_matching_arguments(group)
    add_threshold_arguments(group)
    group.add_argument('--json', action='store_true', help='print the matches as JSON')
    group.add_argument('--contact-sheet', type=Path, metavar='FILE', help='draw queries and matches, .png or .pdf')
    group.add_argument('--force', action='store_true', help='search although metric space or preparation differ')


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    import torch

    terminal = console()
    gallery = open_gallery(args.gallery, args.root)
    if not len(gallery):
        raise ValueError(f'GALLERY must hold images, {str(args.gallery)!r} is empty; embed some by `sfsc-timm index`')
    if args.k < 1:
        raise ValueError(f'-k must be at least 1, got {args.k}')
    check_threshold(args)
    files = _queries(args.images)
    checkpoint = load_model(args, args.checkpoint)
    check_matching(checkpoint, gallery, args)
    width = checkpoint.widths[0] if args.width is None else args.width
    if width not in checkpoint.widths:
        raise ValueError(f'--width must be one of {checkpoint.widths}, got {width:g}')
    checkpoint, flip = _prepared(checkpoint, gallery, args)
    size = query_size(gallery.info.embed_dim, checkpoint.embed_dims, embed_dim(checkpoint, width, args))
    gallery.check(checkpoint.compatibility, size, space_id=checkpoint.space, force=args.force)

    def embedded(images: list[Path]) -> tuple[Tensor, list[Path]]:
        embeddings, readable = _embed(checkpoint, width, images, flip, args)
        return embeddings[:, :size], readable

    def best(embeddings: Tensor) -> Tensor:
        one = argparse.Namespace(**{**vars(args), 'k': 1})
        return torch.tensor([row[0][1] for row in nearest(embeddings, gallery, one)])

    embeddings, files = embedded(files)
    threshold = find_threshold(gallery, _queries, embedded, best, args)
    answers, recall = find_matches(embeddings, files, gallery, args)
    if args.contact_sheet is not None:
        _draw(answers, args.contact_sheet, f'queries at width {width:g}, gallery at width {gallery.info.width:g}')
    if not args.json:
        show(answers, threshold, recall, terminal)
        return
    about = {
        'gallery': str(args.gallery),
        'items': len(gallery),
        'gallery_width': gallery.info.width,
        'query_width': width,
        'distance': args.distance,
    }
    further = {'threshold': threshold and asdict(threshold), f'recall@{args.k}': recall}
    about |= {name: value for name, value in further.items() if value is not None}
    sys.stdout.write(json.dumps({**about, 'results': to_json(answers, threshold)}, indent=1) + '\n')


def _queries(images: list[Path]) -> list[Path]:
    from ..data._files import require_images

    files = []
    for image in images:
        if image.is_dir():
            files += require_images(image, '  FOLDER/**/*.jpg, .png, ...', recursive=True)
        elif image.is_file():
            files.append(image)
        else:
            raise FileNotFoundError(f'IMAGE must be a file or a folder, no image at {str(image)!r}')
    return files


def _prepared(checkpoint: Checkpoint, gallery: Store, args: argparse.Namespace) -> tuple[Checkpoint, bool]:
    """The checkpoint with the preprocessing of the gallery, and whether to average with the mirrored image."""
    known = Preparation.of(gallery)
    if known is None:
        return checkpoint, args.flip
    wanted = known.for_queries(gallery.location, asked_preprocessing(args), flip=args.flip, force=args.force)
    channels = wanted.preprocessing.channels
    if channels != checkpoint.preprocessing.channels:
        raise IncompatibleGalleryError(
            f'the images of {gallery.location!r} were prepared with {channels} channels, the checkpoint takes '
            f'{checkpoint.preprocessing.channels}: they are not of one metric space'
        )
    return replace(checkpoint, preprocessing=wanted.preprocessing), wanted.flip


def _embed(
    checkpoint: Checkpoint, width: float, files: list[Path], flip: bool, args: argparse.Namespace
) -> tuple[Tensor, list[Path]]:
    """Embeddings (N, D) of the readable ones among the files, and those files."""
    loader = serve(checkpoint, [Sample(file, 0) for file in files], args)
    readable: list[Path] = []

    def images() -> Iterator[Tensor]:
        for batch in track(loader, len(loader), 'queries'):
            readable.extend(files[i] for i in batch.indices.tolist())
            yield batch.images
        if not readable:
            raise ValueError('none of the query images could be read')

    return embed(checkpoint.model, images(), [width], device=find_device(args.device), flip=flip)[width], readable


def _draw(answers: list[Answer], path: Path, note: str) -> None:
    matches: list[list[Any]] = [[Match(match, None, f'{score:.2f}') for match, score in one.matches] for one in answers]
    plot_contact_sheet([Match(one.images[0]) for one in answers], matches, path, note=note)
