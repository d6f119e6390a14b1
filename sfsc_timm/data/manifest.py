"""`manifest`: any images listed in a CSV file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

from ._files import read_text, require
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
    lines = csv.reader(io.StringIO(read_text(file, TREE), newline=''), strict=True)
    rows: list[Row] = []
    try:
        columns = _columns(file, next(lines, []))
        rows.extend(_row(file, lines.line_num, columns, cells) for cells in lines if cells)
    except csv.Error as error:
        raise ValueError(f'{file}, line {lines.line_num}: this is no CSV ({error}).') from error
    if not rows:
        raise ValueError(f'{file} lists no images; expected:\n{TREE}')
    if len({bool(row.camera) for row in rows}) > 1:
        raise ValueError(f'{file}: camera must be given for all images or for none.')
    splits = {row.split for row in rows}
    if 'test' in splits and splits & {'query', 'gallery'}:
        raise ValueError(f'{file}: split is either test, or query and gallery; got all of them.')
    return rows


def read_labels(file: Path) -> dict[str, dict[str, str]]:
    """All columns of a manifest but path and split: for each, its text by absolute path, where there is one.

    Raises:
        ValueError: See `read_manifest`.
    """
    rows = read_manifest(file)
    lines = [cells for cells in csv.reader(io.StringIO(read_text(file, TREE), newline=''), strict=True) if cells]
    names = [name.strip() for name in lines[0]]
    paths = [str(row.path.resolve()) for row in rows]
    return {
        name: {path: text for path, cells in zip(paths, lines[1:], strict=True) if (text := cells[place].strip())}
        for place, name in enumerate(names)
        if name not in {'path', 'split', ''}
    }


def _columns(file: Path, header: list[str]) -> list[str]:
    """Checks the first line, the names of the columns."""
    names = [name.strip() for name in header]
    missing = sorted({'path', 'identity', 'split'} - set(names))
    if missing:
        got = ','.join(header)[:80]
        raise ValueError(
            f'{file} has no column {", ".join(missing)}; its first line must name the columns, got {got!r}. '
            f'Expected:\n{TREE}'
        )
    for name in ('path', 'identity', 'camera', 'split'):
        if names.count(name) > 1:
            raise ValueError(f'{file} has the column {name} twice; leave one out.')
    return names


def _row(file: Path, line: int, columns: list[str], cells: list[str]) -> Row:
    where = f'{file}, line {line}'
    if len(cells) != len(columns):
        raise ValueError(f'{where}: expected {len(columns)} cells, got {len(cells)}; quote values that hold a comma.')
    values = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    path, *labels = (values.get(name, '') for name in ('path', 'identity', 'camera', 'split'))
    row = Row(file.parent / path, *labels)
    if not path or not row.identity:
        raise ValueError(f'{where}: path and identity must not be empty.')
    if '\0' in path:
        raise ValueError(f'{where}: path must be the name of a file, got {path!r}.')
    if row.split not in {'train', 'query', 'gallery', 'test'}:
        raise ValueError(f'{where}: split must be train, query, gallery or test, got {row.split!r}.')
    return row


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
