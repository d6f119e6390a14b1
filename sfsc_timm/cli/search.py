"""Searches a gallery that `sfsc-timm index` made, with queries embedded at any width of the same model.

  sfsc-timm search gallery query.jpg --checkpoint quickstart --width 0.25
  sfsc-timm search gallery query.jpg other.jpg -k 5 --checkpoint w0.25 --contact-sheet matches.png
  sfsc-timm search gallery queries/ --checkpoint w0.25 --json > matches.json

The gallery remembers the metric space it was embedded in, and how its images were prepared. Queries are prepared in the
same way; options that ask for another one, and checkpoints of another space, are refused unless --force. Queries of a
checkpoint of several embedding sizes are cut to the size of the gallery (`sfsc-timm index --dim`).

"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from ..data import Sample
from ..evaluation import Match, embed, plot_contact_sheet
from ..retrieval import (
    Gallery,
    IncompatibleGalleryError,
    LanceGallery,
    Preparation,
    Store,
    indexed,
    open_gallery,
    query_size,
)
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
from ._terminal import console, visible

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
    group.add_argument('--json', action='store_true', help='print the matches as JSON')
    group.add_argument('--contact-sheet', type=Path, metavar='FILE', help='draw queries and matches, .png or .pdf')
    group.add_argument('--force', action='store_true', help='search although metric space or preparation differ')


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    gallery = open_gallery(args.gallery, args.root)
    if not len(gallery):
        raise ValueError(f'GALLERY must hold images, {str(args.gallery)!r} is empty; embed some by `sfsc-timm index`')
    if args.k < 1:
        raise ValueError(f'-k must be at least 1, got {args.k}')
    files = _queries(args.images)
    checkpoint = load_model(args, args.checkpoint)
    width = checkpoint.widths[0] if args.width is None else args.width
    if width not in checkpoint.widths:
        raise ValueError(f'--width must be one of {checkpoint.widths}, got {width:g}')
    checkpoint, flip = _prepared(checkpoint, gallery, args)
    size = query_size(gallery.info.embed_dim, checkpoint.embed_dims, embed_dim(checkpoint, width, args))
    gallery.check(checkpoint.compatibility, size, space_id=checkpoint.space, force=args.force)
    embeddings, files = _embed(checkpoint, width, files, flip, args)
    found = _search(embeddings[:, :size], gallery, args)
    if args.contact_sheet is not None:
        _draw(files, found, args.contact_sheet, f'queries at width {width:g}, gallery at width {gallery.info.width:g}')
    if args.json:
        result = {
            'gallery': str(args.gallery),
            'items': len(gallery),
            'gallery_width': gallery.info.width,
            'query_width': width,
            'distance': args.distance,
            'results': [
                {'query': str(file), 'matches': [{'path': path, 'score': score} for path, score in matches]}
                for file, matches in zip(files, found, strict=True)
            ],
        }
        sys.stdout.write(json.dumps(result, indent=1) + '\n')
        return
    for file, matches in zip(files, found, strict=True):
        terminal.print(visible(str(file), keep=''), style='bold', soft_wrap=True)
        for path, score in matches:
            terminal.print(f'  {score:7.4f}  {visible(path, keep="")}', soft_wrap=True)


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


def _search(queries: Tensor, gallery: Store, args: argparse.Namespace) -> list[list[tuple[str, float]]]:
    """Paths and scores of the matches of each query, best first."""
    k = min(args.k, len(gallery))
    if isinstance(gallery, LanceGallery):
        if args.faiss:
            raise ValueError('--faiss is for safetensors galleries, got a Lance gallery, which has an index of its own')
        return gallery.search(queries, k, distance=args.distance, where=args.where, exact=args.exact)
    if not args.faiss or not isinstance(gallery, Gallery):
        return gallery.search(queries, k, distance=args.distance, where=args.where)
    if args.where is not None:
        gallery.blocks(args.where)  # which it refuses
    scores, items = indexed(gallery, args.distance).search(queries, k)
    paths = gallery.paths
    return [
        [(paths[item], score) for item, score in zip(row, values, strict=True) if item >= 0]
        for row, values in zip(items.tolist(), scores.tolist(), strict=True)
    ]


def _draw(files: list[Path], found: list[list[tuple[str, float]]], path: Path, note: str) -> None:
    matches: list[list[Any]] = [[Match(match, None, f'{score:.2f}') for match, score in row] for row in found]
    plot_contact_sheet([Match(file) for file in files], matches, path, note=note)
