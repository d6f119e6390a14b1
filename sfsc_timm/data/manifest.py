"""`manifest`: any images listed in a CSV file."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

from ._files import require
from ._registry import register_data
from ._types import DISTRACTOR, RetrievalData, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TREE = """\
  manifest.csv:
    path,identity,camera,split
    images/a.jpg,ann,north,train
    images/b.jpg,bob,north,query
    images/c.jpg,bob,south,gallery
    images/d.jpg,distractor,south,gallery"""


class Row(NamedTuple):
    """A line of a manifest.

    Attributes:
        path: The image file.
        identity: Name of what it shows; 'distractor' or '-1' for a gallery image that matches no query.
        camera: Name of the camera, empty if there are none.
        split: 'train', 'query', 'gallery', or 'test' for an image that is both query and gallery.
    """

    path: Path
    identity: str
    camera: str
    split: str


@register_data('manifest')
def manifest(root: Path) -> RetrievalData:
    """Reads a CSV file with the columns path, identity, split and, if there are cameras, camera.

    Paths are relative to the file's folder. Identities and cameras are any text, numbered in alphabetical order.
    The split is train, query or gallery; or train and test, whose images are query and gallery at once.

    Args:
        root: The CSV file.

    Raises:
        FileNotFoundError: The file, or the first image it lists, is missing.
        ValueError: A column or value is missing or unknown; the message gives the line.
    """
    rows = read_manifest(root)
    require(rows[0].path, TREE)
    return from_rows(root.stem, rows)


def read_manifest(file: Path) -> list[Row]:
    """Reads and checks the lines of a manifest."""
    with require(file, TREE).open(newline='', encoding='utf-8-sig') as lines:
        reader = csv.DictReader(lines)
        missing = {'path', 'identity', 'split'} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f'{file} has no column {", ".join(sorted(missing))}; expected:\n{TREE}')
        rows = []
        for line in reader:
            path, *labels = ((line.get(name) or '').strip() for name in ('path', 'identity', 'camera', 'split'))
            row = Row(file.parent / path, *labels)
            where = f'{file}, line {reader.line_num}'
            if not path or not row.identity:
                raise ValueError(f'{where}: path and identity must not be empty.')
            if row.split not in {'train', 'query', 'gallery', 'test'}:
                raise ValueError(f'{where}: split must be train, query, gallery or test, got {row.split!r}.')
            rows.append(row)
    if not rows:
        raise ValueError(f'{file} lists no images; expected:\n{TREE}')
    if len({bool(row.camera) for row in rows}) > 1:
        raise ValueError(f'{file}: camera must be given for all images or for none.')
    splits = {row.split for row in rows}
    if 'test' in splits and splits & {'query', 'gallery'}:
        raise ValueError(f'{file}: split is either test, or query and gallery; got all of them.')
    return rows


def from_rows(name: str, rows: Iterable[Row], ks: tuple[int, ...] = (1, 5, 10), overlap: bool = False) -> RetrievalData:
    """Numbers identities and cameras, and builds the data set."""
    rows = list(rows)
    identities = {text: i for i, text in enumerate(sorted({row.identity for row in rows} - {'distractor', '-1'}))}
    cameras = {text: i for i, text in enumerate(sorted({row.camera for row in rows}))}
    splits: dict[str, list[Sample]] = {'train': [], 'query': [], 'gallery': [], 'test': []}
    for row in rows:
        sample = Sample(row.path, identities.get(row.identity, DISTRACTOR), cameras[row.camera])
        splits[row.split].append(sample)
    test = splits['test']
    if test:
        splits['query'] = splits['gallery'] = test
    return RetrievalData(
        name,
        splits['train'],
        splits['query'],
        splits['gallery'],
        cameras=any(cameras),
        shared=bool(test),
        ks=ks,
        overlap=overlap,
    )
