"""Embeds a folder of images into a gallery that `sfsc-timm search` searches.

  sfsc-timm index photos --checkpoint quickstart --width 1 --output gallery
  sfsc-timm index --data market1501 --data-dir Market-1501-v15.09.15 --checkpoint best --output market

Run it again after an interruption, or when images were added, and only the missing ones are embedded; items whose file
changed are embedded again, and those whose file is gone are counted. Several processes may do so at once. A gallery
belongs to one metric space, one width, one embedding size and one way of preparing images; anything else is refused.
With --dim, a checkpoint of several embedding sizes (embed_dims) makes a gallery of a smaller one.

--store lance keeps a table of LanceDB in place of safetensors files, in a folder or at s3://bucket/gallery, with the
columns of a manifest, by which `search --where` filters; its index is built by its size. See `sfsc-timm gallery`.

--dtype int8 takes a quarter of the bytes of float32: one scale of each number, by the first images that are embedded
(--shard-size); later numbers beyond the range become its end, and a warning says so from 0.1 % on. binary keeps int8 on
disk and a bit of each number in memory; search compares the bits, then the nearest 100, or a thousandth of all, by
their int8.

The identities of a data set are noted with its images; of a FOLDER with --identities folder. `search --threshold` needs
them.

--engine ray has the processes of a Ray cluster read and embed, one of each GPU, or of each core where there is none;
this process writes. Alone it starts Ray on this machine, with --address (or RAY_ADDRESS) it joins a cluster, whose
machines must see the images by the same paths and have this package. Unreadable images are listed and left
out there. A worker that dies is replaced; after an interruption run the command again: what was written stays.

  sfsc-timm index photos --checkpoint quickstart --output lance --store lance --engine ray --address 10.0.0.1:6379

"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..models._sizes import check_size
from ..retrieval import Existing, GalleryInfo, Preparation, Store, find_changes
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_data_arguments,
    check_data_arguments,
    embed_dim,
    load_model,
    location,
    read_data,
    suited,
    whole_number,
)
from ._parts import Part, embed_here, report_unreadable
from ._ray import add_engine_arguments, embed_by_ray, use_ray
from ._store import add_store_arguments, finish, known_labels, make_gallery
from ._terminal import console

if TYPE_CHECKING:
    from rich.console import Console

    from ..checkpoints import Checkpoint

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument('folder', type=Path, nargs='?', metavar='FOLDER', help='folder of images, in subfolders too')
    add_checkpoint_arguments(parser, workers=None)
    add_data_arguments(parser, required=False, on_error=None)
    group = parser.add_argument_group('gallery')
    group.add_argument(
        '--output', type=location, default=Path('gallery'), metavar='DIR', help='folder of the gallery (%(default)s)'
    )
    add_store_arguments(group)
    add_engine_arguments(parser)
    group.add_argument(
        '--width', type=float, metavar='W', help="width that embeds the images (the checkpoint's widest)"
    )
    group.add_argument(
        '--dim', type=whole_number(1), metavar='N',
        help="embedding size, the first N numbers, one of those that were trained (the checkpoint's largest)",
    )  # fmt: skip
    group.add_argument(
        '--dtype', choices=('float32', 'float16', 'int8', 'binary'), default='float32',
        help='type of the stored numbers, of 4, 2 or 1 bytes; binary is int8 with a bit of each (%(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--shard-size', type=whole_number(1), default=4096, metavar='N',
        help='least number of images between two saves (>= 1; %(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--changed', choices=('embed', 'keep'), default='embed',
        help='what to do with items whose file changed since: embed them again, or keep them as they are (%(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--gone', choices=('keep', 'drop'), default='keep',
        help='what to do with items whose file is gone: keep or drop them (%(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--verify', action='store_true', help='tell changed files by their content, in place of size and time'
    )
    group.add_argument(
        '--unreadable', type=Path, metavar='FILE', help='write path and reason of unreadable images as CSV'
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    if (args.folder is None) == (args.data is None):
        raise ValueError('either a FOLDER of images or --data, whose gallery is embedded, must be given')
    check_data_arguments(args)
    use_ray(args)
    checkpoint = load_model(args, args.checkpoint)
    checkpoint, paths = _find(checkpoint, args)
    width = checkpoint.widths[-1] if args.width is None else args.width
    if width not in checkpoint.widths:
        raise ValueError(f'--width must be one of {checkpoint.widths}, got {width:g}')
    size = embed_dim(checkpoint, width, args) if args.dim is None else check_size(checkpoint.embed_dims, args.dim)
    info = GalleryInfo(
        checkpoint.source, width, size, checkpoint.compatibility, args.dtype, checkpoint.space, checkpoint.digest(width)
    )
    labels = known_labels(paths, args)
    gallery = make_gallery(info, labels, args)
    Preparation(checkpoint.preprocessing, args.flip).claim(gallery)
    again = _compare(gallery, terminal, args)
    left = gallery.missing(paths)
    terminal.print(f'{len(paths)} images, {len(paths) - len(left)} of them in the gallery already', soft_wrap=True)
    unreadable: dict[str, str] = {}
    todo: tuple[tuple[list[str], Existing], ...] = ((left, 'skip'), (again, 'replace'))
    for some, existing in todo:
        if some:
            parts = _parts(some, checkpoint, gallery.info, args)
            unreadable.update(_add(gallery, parts, existing, labels))
    report_unreadable(unreadable, terminal, args.unreadable)
    finish(gallery, labels, paths, terminal, args)
    terminal.print(
        f'{args.output}: {len(gallery)} items at width {width:g}, {size} numbers each'
        + (f'; {len(unreadable)} unreadable images skipped' if unreadable else ''),
        soft_wrap=True,
    )


def _compare(gallery: Store, terminal: Console, args: argparse.Namespace) -> list[str]:
    """Says which files changed or are gone since they were embedded, drops items, returns those to embed again."""
    found = find_changes(gallery, args.verify)
    again = [*(found.changed if args.changed == 'embed' else ()), *(found.unknown if args.verify else ())]
    if found.changed:
        done = 'embedding them again' if args.changed == 'embed' else 'keeping what was embedded'
        terminal.print(f'{len(found.changed)} files changed since they were embedded: {done}', soft_wrap=True)
    if found.gone:
        done = 'dropping their items' if args.gone == 'drop' else 'keeping their items (--gone drop drops them)'
        terminal.print(f'{len(found.gone)} files are gone: {done}', soft_wrap=True)
    if found.unknown:
        done = 'embedding them again' if args.verify else 'not compared (--verify embeds them again)'
        terminal.print(f'{len(found.unknown)} items of an earlier version note no files: {done}', soft_wrap=True)
    if found.gone and args.gone == 'drop':
        gallery.remove(found.gone)
    return again


def _parts(paths: list[str], checkpoint: Checkpoint, info: GalleryInfo, args: argparse.Namespace) -> Iterable[Part]:
    """Embeds images by the engine that was asked for."""
    if args.engine == 'ray':
        return embed_by_ray(paths, checkpoint, info, args)
    args.workers = args.workers or 0
    return embed_here(paths, checkpoint, info, args)


def _add(
    gallery: Store, parts: Iterable[Part], existing: Existing, labels: dict[str, dict[str, str]]
) -> dict[str, str]:
    """Puts embedded images into the gallery; returns those that are unreadable, of which nothing stays in it."""
    unreadable: dict[str, str] = {}
    for part in parts:
        unreadable.update(part.unreadable)
        if part.paths:
            texts = {name: [column.get(path) for path in part.paths] for name, column in labels.items()}
            gallery.append(part.paths, part.embeddings, part.states, existing, texts)
    if unreadable and existing == 'replace':
        gallery.remove(list(unreadable))
    return unreadable


def _find(checkpoint: Checkpoint, args: argparse.Namespace) -> tuple[Checkpoint, list[str]]:
    """The images' absolute paths, each once, and the checkpoint with the preprocessing that suits them."""
    from ..data._files import require_images

    if args.data is None:
        files = require_images(args.folder, '  FOLDER/**/*.jpg, .png, ...', recursive=True)
    else:
        data = read_data(args)
        checkpoint = suited(checkpoint, data, args)
        files = [sample.image for sample in data.gallery if isinstance(sample.image, Path)]
        if not files:
            raise ValueError(f'--data must have files to search for, got {args.data}, which is made at run time')
    return checkpoint, list(dict.fromkeys(str(file.resolve()) for file in files))
