"""Where `index` keeps a gallery, and what becomes of it at the end: labels, and the index of a Lance gallery."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..retrieval import Gallery, GalleryInfo, LanceGallery, Store, build_index
from ..retrieval.lance import ANN_KINDS, is_table, kind_for
from ._options import read_data, whole_number

if TYPE_CHECKING:
    from rich.console import Console

    from ..retrieval import Ann

_LABELLED = 50_000  # at a time


def add_store_arguments(group: Any) -> None:
    """Adds what says how the gallery is kept."""
    group.add_argument(
        '--store', choices=('safetensors', 'lance'),
        help='how to keep it: files, or a table of LanceDB, which outgrows memory (as it is, or safetensors)',
    )  # fmt: skip
    group.add_argument(
        '--root', metavar='DIR',
        help="folder that a Lance gallery's paths are relative to, where it lies on this machine (FOLDER)",
    )  # fmt: skip
    group.add_argument(
        '--identities', choices=('folder',), help="note the name of each image's folder as its identity, of a FOLDER"
    )
    add_index_arguments(group)


def add_index_arguments(group: Any) -> None:
    """Adds what says how a Lance gallery is indexed."""
    group.add_argument(
        '--ann', choices=ANN_KINDS, default='auto',
        help='index of a Lance gallery: none (flat), one of two kinds, or by its size (%(default)s)',
    )  # fmt: skip
    group.add_argument('--partitions', type=whole_number(1), metavar='N', help='parts of the index (by the size)')
    group.add_argument(
        '--sub-vectors', type=whole_number(1), metavar='N', help='bytes of an item in ivf_pq (an eighth of its numbers)'
    )
    group.add_argument(
        '--recall', type=float, default=0.95, metavar='SHARE',
        help='recall@10 on a sample, up to which the search is made more thorough, in (0, 1] (%(default)s)',
    )  # fmt: skip


def make_gallery(info: GalleryInfo, labels: dict[str, dict[str, str]], args: argparse.Namespace) -> Store:
    """Opens or makes the gallery of the arguments."""
    remote = isinstance(args.output, str)
    there = not remote and is_table(args.output)
    store = args.store or ('lance' if remote or there else 'safetensors')
    if store == 'safetensors':
        if remote or there or args.root is not None:
            got = '--root' if args.root is not None else f'{str(args.output)!r}, a Lance gallery'
            raise ValueError(f'--store safetensors is for folders of files, got {got}; leave --store out, or say lance')
        return Gallery.create(args.output, info)
    if not remote and (args.output / 'manifest.json').is_file():
        raise ValueError(
            f'--output must be free for --store lance, got {str(args.output)!r}, a safetensors gallery; choose another '
            'folder, or make a Lance gallery of it by `sfsc-timm gallery convert`'
        )
    root = _root(args) if args.root is None else str(Path(args.root).resolve())
    if args.root is None and _exists(args.output):
        root = ''  # as it is noted
    return LanceGallery.create(args.output, info, root=root, columns=list(labels))


def known_labels(paths: list[str], args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Texts by path: columns that a manifest has beside path and split, or identities of other data or of folders."""
    if args.identities is not None and args.data is not None:
        raise ValueError('--identities is for a FOLDER; those of a data set are noted anyway, leave it out')
    if args.identities is not None:
        return {'identity': {path: Path(path).parent.name for path in paths}}
    if args.data is None:
        return {}
    if args.data != 'manifest':
        samples = [sample for sample in read_data(args).gallery if isinstance(sample.image, Path)]
        return {'identity': {str(sample.image.resolve()): str(sample.identity) for sample in samples}}  # type: ignore[union-attr]
    from ..data.manifest import read_labels

    return read_labels(args.data_dir)


def finish(
    gallery: Store, labels: dict[str, dict[str, str]], paths: list[str], terminal: Console, args: argparse.Namespace
) -> None:
    """Brings labels up to date and indexes a Lance gallery, where either is due."""
    if isinstance(gallery, Gallery):
        _identify(gallery, labels.get('identity', {}))
    if not isinstance(gallery, LanceGallery):
        return
    _label(gallery, labels, paths)
    ann = gallery.ann
    grown = len(gallery) > 2 * (ann.rows if ann is not None else 0)
    wanted = kind_for(len(gallery)) if args.ann == 'auto' else args.ann
    if args.ann == 'auto' and wanted == 'flat' and ann is not None:
        wanted = ann.kind  # that someone asked for
    if wanted != (ann.kind if ann is not None else 'flat') or (grown and wanted != 'flat'):
        report(build_index(gallery, wanted, **index_options(args)), terminal)
    gallery.tidy()


def index_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `build_index`."""
    return {'partitions': args.partitions, 'sub_vectors': args.sub_vectors, 'target': args.recall}


def report(ann: Ann | None, terminal: Console) -> None:
    """Says what an index found of the exact nearest."""
    if ann is None:
        terminal.print('no index: every item is compared', soft_wrap=True)
        return
    terminal.print(
        f'{ann.kind} of {ann.rows} items in {ann.partitions} parts: recall@10 {ann.recall:.3f} on a sample of them, '
        f'with {ann.probes} probes and {ann.refine} times the matches refined',
        soft_wrap=True,
    )


def _identify(gallery: Gallery, identities: dict[str, str]) -> None:
    """Notes the identities of items that have others, or had none."""
    known = zip(gallery.paths, gallery.identities, strict=True)
    other = [path for path, text in known if identities.get(path, text) != text]
    if other:
        gallery.label(other, {'identity': [identities[path] for path in other]})


def _label(gallery: LanceGallery, labels: dict[str, dict[str, str]], paths: list[str]) -> None:
    """Writes the labels of items that have others: a manifest may have changed since they were embedded."""
    if not labels:
        return
    wanted, other = set(paths), []
    for part in gallery.records():
        for i, path in enumerate(part.paths):
            if path in wanted and any(part.labels[name][i] != column.get(path) for name, column in labels.items()):
                other.append(path)
    for begin in range(0, len(other), _LABELLED):
        some = other[begin : begin + _LABELLED]
        gallery.label(some, {name: [column.get(path) for path in some] for name, column in labels.items()})


def _root(args: argparse.Namespace) -> str:
    folder = args.folder if args.folder is not None else args.data_dir
    if folder is None:
        return ''
    return str(folder.resolve() if folder.is_dir() else folder.resolve().parent)


def _exists(output: Path | str) -> bool:
    try:
        LanceGallery(output)
    except FileNotFoundError:
        return False
    return True
