"""Serves a page whose browser embeds pictures at a small width, and searches a gallery of the full width with them.

  sfsc-timm demo
  sfsc-timm demo gallery --checkpoint quickstart --width 0.25
  sfsc-timm demo gallery --checkpoint quickstart --space space

Alone it shows the weights that ship on a gallery of letters and signs. GALLERY is a folder of `sfsc-timm index`, of
the same checkpoint. What is exported, drawn and fetched is kept in a cache, so that the second start is quick. The
browser's ONNX Runtime comes through npm, once; nothing else is fetched, and the page asks no other server.

Only the embedding of a picture leaves the browser, unless a visitor switches on a width that runs on the server.
Whoever reaches the server sees the gallery's pictures and the names of their files; it listens to this machine alone
unless --host says otherwise. --space writes a folder for the Hugging Face Hub in place of serving, with all pictures,
shrunk to 256 pixels, and the names of their files.

"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import scratch_folder
from ._options import CHECKPOINT, whole_number
from ._terminal import console

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..demo.server import Site

NOTES = CHECKPOINT
_SHIPPED = 'sfsc_resnet18d'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument('gallery', type=Path, nargs='?', metavar='GALLERY', help='folder of the gallery (glyphs)')
    parser.add_argument(
        '--checkpoint', default=_SHIPPED, metavar='CHECKPOINT', help='the trained model, see above (%(default)s)'
    )
    parser.add_argument('--width', type=float, metavar='W', help="width in the browser (the checkpoint's narrowest)")
    parser.add_argument(
        '--server-widths', type=float, nargs='*', metavar='W',
        help="widths on the server, for comparison (the checkpoint's widest)",
    )  # fmt: skip
    parser.add_argument(
        '-k', type=whole_number(1, 50), default=10, metavar='K', help='matches to show, in [1, 50] (%(default)s)'
    )
    parser.add_argument(
        '--examples', type=Path, metavar='DIR', help='folder of pictures to offer as examples (some of the gallery)'
    )
    parser.add_argument(
        '--matrix', type=Path, metavar='FILE', help='matrix.json of `sfsc-timm eval` (that beside the checkpoint)'
    )
    group = parser.add_argument_group('serving')
    group.add_argument('--host', default='127.0.0.1', metavar='ADDRESS', help='address to listen at (%(default)s)')
    group.add_argument(
        '--port', type=whole_number(0, 65535), default=7860, metavar='N', help='port, 0 for a free one (%(default)s)'
    )
    group.add_argument(
        '--ort-dir', type=Path, metavar='DIR', help="folder with onnxruntime-web's files, in place of npm"
    )
    group.add_argument('--cache', type=Path, metavar='DIR', help='folder of the cache (sfsc-timm in ~/.cache)')
    group.add_argument('--space', type=Path, metavar='DIR', help='write a Hugging Face Space there, and serve nothing')


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ..data import load_image
    from ..demo import write_space
    from ..demo.server import DemoServer, Routes
    from ..export.onnx import require_onnx

    terminal = console()
    require_onnx()
    with scratch_folder('demo') as scratch:
        site = _site(args, terminal, scratch)
        if args.space is not None:
            size = write_space(site, args.space)
            terminal.print(f'{args.space}: {size / 1e6:.1f} MB, {len(site.images)} pictures', soft_wrap=True)
            return
        with DemoServer(Routes(site, load_image), args.host, args.port) as server:
            terminal.print(f'{server.url}  (Ctrl-C stops it)', soft_wrap=True)
            server.serve_forever()


def _site(args: argparse.Namespace, terminal: Any, scratch: Path) -> Site:
    from ..checkpoints import load_checkpoint_model
    from ..data._files import require_images
    from ..demo import cache_folder, find_runtime, make_examples, make_site, prepared_as, read_matrix
    from ..retrieval import Store, open_gallery

    cache = args.cache or cache_folder()
    checkpoint = load_checkpoint_model(args.checkpoint)
    browser = checkpoint.widths[0] if args.width is None else args.width
    server = checkpoint.widths[-1:] if args.server_widths is None else tuple(dict.fromkeys(args.server_widths))
    matrix = read_matrix(checkpoint, args.matrix)
    gallery: Store
    examples: list[Path] | None
    if args.gallery is None:
        gallery, examples, measured = _glyphs(checkpoint, terminal, cache)
        matrix = matrix or measured
    else:
        gallery = open_gallery(args.gallery)
        examples = None
    checkpoint, flip = prepared_as(gallery, checkpoint)
    runtime = find_runtime(cache, args.ort_dir)  # once all else is known to fit
    if args.examples is not None:
        examples = require_images(args.examples, '  DIR/*.jpg, .png, ...')[:8]
    if examples is None or args.examples is not None:
        examples = make_examples(examples or [Path(path) for path, _ in gallery.files()], scratch)
    terminal.print(f'{len(gallery)} pictures; the browser runs width {browser:g}', soft_wrap=True)
    return make_site(
        checkpoint, gallery, browser=browser, server=server, examples=examples, matrix=matrix, runtime=runtime,
        cache=cache, flip=flip, k=args.k,
    )  # fmt: skip


def _glyphs(checkpoint: Checkpoint, terminal: Any, cache: Path) -> tuple[Any, list[Path], Any]:
    """A gallery of glyphs, pictures to try, and the matrix measured on them."""
    from ..demo import draw_glyphs, glyph_gallery

    terminal.print('No GALLERY is named: letters and signs are drawn and embedded, which takes a minute once.')
    data = draw_glyphs(cache / 'glyphs')
    gallery, matrix = glyph_gallery(checkpoint, data, cache / 'galleries')
    queries = [Path(str(sample.image)) for sample in data.query]
    return gallery, queries[:: max(1, len(queries) // 8)][:8], matrix
