"""Fits narrow widths again to your own images, which need no labels, so that they agree better with the full width.

  sfsc-timm refit best --images photos --output refitted
  sfsc-timm refit best --images photos --width 0.25 0.5 --output refitted
  sfsc-timm refit best --images photos --add-width 0.4 --output refitted
  sfsc-timm search query.jpg --gallery gallery --checkpoint refitted/w0.25

The images should be of what will be searched for, best the gallery's own files: on others less is gained, or nothing.
The full width and the metric space stay, so a gallery that the full width embedded is searched as before.
Whether a width gains is measured on images that it was not fitted to; one that does not is written as it was.

A width that was never trained can be added: a slice of the trained weights, whose norms and neck the images fit. It
comes closer to the trained ones where training drew random widths, too (`sfsc-timm train --recipe-kwargs
random_widths=1`). `model.add_width` and `sfsc_timm.checkpoints.save_model` keep it in the whole checkpoint.

"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Sample
from ._options import CHECKPOINT, add_checkpoint_arguments, add_error_argument, load_model, serve, track
from ._terminal import console

if TYPE_CHECKING:
    from torch import Tensor

NOTES = CHECKPOINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_checkpoint_arguments(parser, positional=True)
    group = parser.add_argument_group('fitting')
    group.add_argument('--images', type=Path, required=True, metavar='DIR', help='folder of images, in subfolders too')
    group.add_argument(
        '--width', type=float, nargs='+', metavar='W', help='widths to fit again (all below the full one)'
    )
    group.add_argument(
        '--add-width', type=float, nargs='+', default=[], metavar='W', help='widths to add, and to fit to the images'
    )
    group.add_argument('--limit', type=int, default=5000, metavar='N', help='images to use, at most (%(default)s)')
    group.add_argument('--seed', type=int, default=0, metavar='N', help='which images fit and which measure (0)')
    group.add_argument(
        '--output', type=Path, default=Path('refitted'), metavar='DIR', help='folder for a folder of each width'
    )
    add_error_argument(group)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ..checkpoints.refit import refit, save_refitted
    from ..data._files import hash_order, require_images
    from ..models import Slimmable, estimate_statistics

    terminal = console()
    for flag, value, least in (('--limit', args.limit, 1), ('--seed', args.seed, 0)):
        if value < least:
            raise ValueError(f'{flag} must be at least {least}, got {value}')
    if args.flip:
        raise ValueError('--flip averages two embeddings, to which no neck can be fitted; leave it out')
    checkpoint = load_model(args, args.checkpoint)
    model = checkpoint.model
    if not isinstance(model, Slimmable):
        raise ValueError(
            f'the checkpoint must be a whole slimmable model, got single widths in {args.checkpoint}; name the '
            'checkpoint that they are from'
        )
    files = require_images(args.images, '  DIR/**/*.jpg, .png, ...', recursive=True)
    chosen = hash_order([str(file) for file in files], args.seed)[: args.limit]
    loader = serve(checkpoint, [Sample(Path(path), 0) for path in chosen], args)

    def images(label: str) -> Iterator[Tensor]:
        for batch in track(loader, len(loader), label):
            yield batch.images

    for width in args.add_width:
        model.add_width(width)
    if args.add_width:
        estimate_statistics(model, images('statistics'), args.add_width)
    results = refit(model, images('embedding'), args.width, seed=args.seed)
    for result in results:
        agreement, neighbours = result.agreement, result.neighbours
        terminal.print(
            f'width {result.width:g}: cosine to the full width {agreement[0]:.3f} -> {agreement[1]:.3f}, of the ten '
            f'nearest images that the full width finds it finds {10 * neighbours[0]:.1f} -> {10 * neighbours[1]:.1f}: '
            + ('taken' if result.gains else 'nothing gained, left as it was'),
            soft_wrap=True,
        )
    folders = save_refitted(
        model,
        results,
        args.output,
        compatibility=checkpoint.compatibility,
        space=checkpoint.space,
        allow_plugin=True,
        data_config=checkpoint.preprocessing.to_dict(),
    )
    terminal.print(f'{args.output}: {", ".join(folder.name for folder in folders.values())}', soft_wrap=True)
