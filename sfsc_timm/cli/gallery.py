"""Looks after galleries that `sfsc-timm index` made, of both kinds: folders of safetensors files, and Lance tables.

  sfsc-timm gallery info gallery
  sfsc-timm gallery rm gallery photos/old photos/blurred.jpg
  sfsc-timm gallery merge gallery other-gallery
  sfsc-timm gallery convert gallery lance-gallery
  sfsc-timm gallery convert gallery small-gallery --dtype int8
  sfsc-timm gallery export gallery items.parquet --format parquet
  sfsc-timm gallery root lance-gallery /mnt/photos
  sfsc-timm gallery optimize lance-gallery --ann ivf_pq

A GALLERY is a folder, or for Lance an address such as s3://bucket/gallery.

"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..retrieval import LanceGallery, build_index, convert, export, merge, open_gallery
from ._options import location
from ._store import add_index_arguments, index_options, report
from ._terminal import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    _action(actions, 'info', 'what it holds, and by what it was embedded')
    one = _action(actions, 'rm', 'take items out')
    one.add_argument('paths', nargs='+', metavar='PATH', help='files, or folders of files; they need not exist')
    one = _action(actions, 'merge', 'add the items of galleries of the same metric space')
    one.add_argument('others', type=location, nargs='+', metavar='OTHER', help='whose items are added')
    one.add_argument(
        '--existing', choices=('refuse', 'skip', 'replace'), default='refuse',
        help='what to do with items that are in both (%(default)s)',
    )  # fmt: skip
    one = _action(actions, 'convert', 'copy into the other kind: safetensors to Lance, Lance to safetensors')
    one.add_argument('output', type=location, metavar='OUTPUT', help='folder or, for Lance, address of the copy')
    one.add_argument('--root', metavar='DIR', help='folder that paths become relative to (the innermost one of all)')
    one.add_argument(
        '--dtype', choices=('float32', 'float16', 'int8', 'binary'),
        help='make a safetensors gallery of this type, in place of the other kind',
    )  # fmt: skip
    one = _action(actions, 'export', 'write a file that other databases load')
    one.add_argument('file', type=Path, metavar='FILE', help='the file')
    one.add_argument(
        '--format', choices=('parquet', 'npy'), default='parquet',
        help='a table, or an array with FILE.jsonl beside it (%(default)s)',
    )  # fmt: skip
    one = _action(actions, 'root', "say where the files of a Lance gallery's relative paths lie now")
    one.add_argument('root', metavar='DIR', help='folder or address')
    one = _action(actions, 'optimize', 'tidy a Lance gallery, build its index and measure it')
    one.add_argument(
        '--keep-days', type=float, default=7.0, metavar='N', help='remove versions older than N days (%(default)s)'
    )
    add_index_arguments(one)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    parser.add_argument('gallery', type=location, metavar='GALLERY', help='folder or address of the gallery')
    return parser


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    console()  # without rich it says so before any work
    {
        'info': _info, 'rm': _remove, 'merge': _merge, 'convert': _convert, 'export': _export, 'root': _root,
        'optimize': _optimize,
    }[args.action](args)  # fmt: skip


def _info(args: argparse.Namespace) -> None:
    gallery = open_gallery(args.gallery)
    info = gallery.info
    told = {
        'items': len(gallery), 'model': info.model, 'width': f'{info.width:g}', 'numbers': info.embed_dim,
        'type': info.dtype, 'space id': info.space_id or 'unknown', 'compatibility id': info.compatibility_id,
    }  # fmt: skip
    if isinstance(gallery, LanceGallery):
        ann = gallery.ann
        told |= {
            'root': gallery.root or 'none', 'columns': ', '.join(gallery.columns) or 'none', 'version': gallery.version,
            'index': 'none' if ann is None else f'{ann.kind}, recall@10 {ann.recall:.3f} when it was built',
        }  # fmt: skip
    for name, value in told.items():
        _say(f'{name}: {value}')


def _remove(args: argparse.Namespace) -> None:
    gallery = open_gallery(args.gallery)
    # The last part of a name may be a link, of which `index` noted the file.
    asked = {os.path.abspath(path) for path in args.paths} | {os.path.realpath(path) for path in args.paths}
    asked |= set(args.paths)
    folders = tuple(path.rstrip(os.sep) + os.sep for path in asked)
    found = [path for path, _ in gallery.files() if path in asked or path.startswith(folders)]
    for given in args.paths:
        names = {given, os.path.abspath(given), os.path.realpath(given)}
        if not any(path in names or path.startswith(tuple(f'{name.rstrip(os.sep)}{os.sep}' for name in names))
                   for path in found):  # fmt: skip
            raise ValueError(f'PATH must be an item of the gallery, or a folder of some, got {given!r}')
    gallery.remove(found)
    _say(f'{args.gallery}: {len(found)} items out, {len(gallery)} left')


def _merge(args: argparse.Namespace) -> None:
    gallery = open_gallery(args.gallery)
    for other in args.others:
        merge(gallery, open_gallery(other), args.existing)
    _say(f'{args.gallery}: {len(gallery)} items')


def _convert(args: argparse.Namespace) -> None:
    source = open_gallery(args.gallery)
    if (args.dtype is not None or isinstance(source, LanceGallery)) and isinstance(args.output, str):
        raise ValueError(f'a safetensors gallery must be a folder, got {args.output!r}')
    made = convert(source, args.output, root=args.root, dtype=args.dtype)
    _say(f'{args.output}: {len(made)} items, {"Lance" if isinstance(made, LanceGallery) else "safetensors"}')


def _export(args: argparse.Namespace) -> None:
    gallery = open_gallery(args.gallery)
    export(gallery, args.file, args.format)
    _say(f'{args.file}: {len(gallery)} items, {gallery.info.embed_dim} numbers each')


def _root(args: argparse.Namespace) -> None:
    gallery = _lance(args)
    gallery.move(args.root if '://' in args.root else str(Path(args.root).resolve()))
    _say(f'{args.gallery}: root {gallery.root}')


def _optimize(args: argparse.Namespace) -> None:
    gallery = _lance(args)
    gallery.tidy(keep_days=args.keep_days)
    report(build_index(gallery, args.ann, **index_options(args)), console())
    gallery.tidy(keep_days=args.keep_days)


def _lance(args: argparse.Namespace) -> LanceGallery:
    gallery = open_gallery(args.gallery)
    if not isinstance(gallery, LanceGallery):
        raise ValueError(f'{args.action} is for Lance galleries, got {str(args.gallery)!r}, files; convert it first')
    return gallery


def _say(text: str) -> None:
    console().print(text, soft_wrap=True)
