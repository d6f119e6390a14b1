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
disk and a bit of each number in memory; search compares the bits, then the nearest 100 by their int8.

The identities of a data set are noted with its images; of a FOLDER with --identities folder. `search --threshold` needs
them.

"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from ..data import Sample
from ..evaluation import embed
from ..models._sizes import check_size
from ..retrieval import Existing, GalleryInfo, Preparation, Store, find_changes, state_since, times_of
from ._options import (
    CHECKPOINT,
    add_checkpoint_arguments,
    add_data_arguments,
    check_data_arguments,
    embed_dim,
    load_model,
    location,
    read_data,
    serve,
    suited,
    track,
    whole_number,
)
from ._store import add_store_arguments, finish, known_labels, make_gallery
from ._terminal import console

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from ..checkpoints import Checkpoint
    from ..data import Batches

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument('folder', type=Path, nargs='?', metavar='FOLDER', help='folder of images, in subfolders too')
    add_checkpoint_arguments(parser)
    add_data_arguments(parser, required=False)
    group = parser.add_argument_group('gallery')
    group.add_argument(
        '--output', type=location, default=Path('gallery'), metavar='DIR', help='folder of the gallery (%(default)s)'
    )
    add_store_arguments(group)
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


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    if (args.folder is None) == (args.data is None):
        raise ValueError('either a FOLDER of images or --data, whose gallery is embedded, must be given')
    check_data_arguments(args)
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
    skipped = _add(gallery, left, 'skip', checkpoint, labels, args)
    skipped += _add(gallery, again, 'replace', checkpoint, labels, args)
    finish(gallery, labels, paths, terminal, args)
    terminal.print(
        f'{args.output}: {len(gallery)} items at width {width:g}, {size} numbers each'
        + (f'; {skipped} unreadable images skipped' if skipped else ''),
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


def _add(
    gallery: Store,
    paths: list[str],
    existing: Existing,
    checkpoint: Checkpoint,
    labels: dict[str, dict[str, str]],
    args: argparse.Namespace,
) -> int:
    """Embeds images into the gallery; returns how many were unreadable, of which nothing stays in it."""
    if not paths:
        return 0
    times = times_of(paths)
    loader = serve(checkpoint, [Sample(Path(path), 0) for path in paths], args)
    for indices, embeddings in _shards(checkpoint, gallery.info, loader, args):
        chosen = [paths[i] for i in indices]
        states = [state_since(path, times.get(path)) for path in chosen]
        texts = {name: [column.get(path) for path in chosen] for name, column in labels.items()}
        gallery.append(chosen, embeddings, states, existing, texts)
    if loader.skipped and existing == 'replace':
        gallery.remove([paths[i] for i in loader.skipped])
    return len(loader.skipped)


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


def _shards(
    checkpoint: Checkpoint, info: GalleryInfo, loader: Batches, args: argparse.Namespace
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yields places in the list of samples and their embeddings (N, D), some batches at a time."""
    width, size = info.width, info.embed_dim
    count = max(1, -(-args.shard_size // args.batch_size))
    stream = track(loader, len(loader), 'embedding')
    for first in stream:
        indices: list[int] = []

        def images(first: Any = first, indices: list[int] = indices) -> Iterator[torch.Tensor]:
            for batch in chain([first], islice(stream, count - 1)):
                indices.extend(batch.indices.tolist())
                yield batch.images

        embeddings = embed(checkpoint.model, images(), [width], device=find_device(args.device), flip=args.flip)[width]
        yield indices, embeddings[:, :size]
