"""Galleries that were damaged, swapped or forged: a search gives the same matches, or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .case import Case
from .damage import BROKEN, json_changes
from .materials import Materials


def galleries(materials: Materials) -> Iterator[Case]:
    """Manifests, shards and notes of galleries."""

    def gallery(change: Callable[[Path], Any]) -> Callable[[Path], list[str]]:
        def prepare(folder: Path) -> list[str]:
            copied = materials.copy(materials.gallery, folder)
            change(copied)
            return materials.search(copied)

        return prepare

    found: Callable[[], str] = lambda: materials.found  # noqa: E731
    for file in ('manifest.json', 'preprocessing.json'):
        content = json.loads((materials.gallery / file).read_text())
        for name, new in islice(json_changes(content), 0, None, 2):

            def write(folder: Path, file: str = file, new: Any = new) -> None:
                (folder / file).write_text(json.dumps(new))

            yield Case(f'galleries: {file}', name, gallery(write), r'gallery', found)
        for name, text in BROKEN:

            def put(folder: Path, file: str = file, text: bytes = text) -> None:
                (folder / file).write_bytes(text)

            yield Case(f'galleries: {file}', name, gallery(put), file, found)

        def remove(folder: Path, file: str = file) -> None:
            (folder / file).unlink()

        yield Case(f'galleries: {file}', 'left out', gallery(remove), r'gallery', found)
    yield from _shards(gallery, found)


def _shards(gallery: Callable[[Callable[[Path], Any]], Any], found: Callable[[], str]) -> Iterator[Case]:
    def shard(change: Callable[[torch.Tensor, list[str]], tuple[torch.Tensor, Any]]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = sorted(folder.glob('*.safetensors'))[0]
            with safe_open(file, 'pt') as opened:
                metadata = opened.metadata()
                embeddings, paths = change(opened.get_tensor('embeddings'), json.loads(metadata['paths']))
            save_file({'embeddings': embeddings.contiguous()}, file, {**metadata, 'paths': json.dumps(paths)})

        return write

    def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = sorted(folder.glob('*.safetensors'))[0]
            file.write_bytes(change(file.read_bytes()))

        return write

    def swap(folder: Path) -> None:
        first, second, *_ = sorted(folder.glob('*.safetensors'))
        shutil.copy(first, second)

    changes: list[tuple[str, Callable[[Path], Any]]] = [
        ('a path too many', shard(lambda e, p: (e, [*p, 'x.png']))),
        ('a path too few', shard(lambda e, p: (e, p[1:]))),
        ('a path twice', shard(lambda e, p: (e, [p[0], *p[:-1]]))),
        ('one row', shard(lambda e, p: (e[:1], p))),
        ('one column', shard(lambda e, p: (e[:, :1], p))),
        ('a row less', shard(lambda e, p: (e[1:], p))),
        ('a row more', shard(lambda e, p: (torch.cat([e, e[:1]]), p))),
        ('flat', shard(lambda e, p: (e.flatten(), p))),
        ('integers', shard(lambda e, p: (e.mul(10).int(), p))),
        ('float64', shard(lambda e, p: (e.double(), p))),
        ('bool', shard(lambda e, p: (e > 0, p))),
        ('NaN', shard(lambda e, p: (e * torch.nan, p))),
        ('inf', shard(lambda e, p: (e * torch.inf, p))),
        ('paths as a text', shard(lambda e, p: (e, 'abcde'))),
        ('paths as numbers', shard(lambda e, p: (e, [1, 2, 3, 4, 5]))),
        ('paths as a mapping', shard(lambda e, p: (e, dict.fromkeys(p, 1)))),
        ('no rows', shard(lambda e, p: (e[:0], []))),
        ('perturbed', shard(lambda e, p: (e.flip(0) + 0.3, p))),
        ('cut off', raw(lambda b: b[: len(b) // 2])),
        ('empty', raw(lambda b: b'')),
        ('text', raw(lambda b: b'hello world')),
        ('a huge header', raw(lambda b: b'\xff' * 8 + b[8:])),
        ('without paths', lambda f: save_file({'embeddings': torch.zeros(5, 16)}, sorted(f.glob('*.safetensors'))[0])),
        (
            'another tensor',
            lambda f: save_file(
                {'x': torch.zeros(5, 16)}, sorted(f.glob('*.safetensors'))[0], {'paths': '["a","b","c","d","e"]'}
            ),
        ),
        (
            'paths that are no JSON',
            lambda f: save_file(
                {'embeddings': torch.zeros(5, 16)}, sorted(f.glob('*.safetensors'))[0], {'paths': '[oops'}
            ),
        ),
        ('two shards alike', swap),
        ('a shard missing', lambda f: sorted(f.glob('*.safetensors'))[0].unlink()),
    ]
    for name, change in changes:
        yield Case('galleries: shards', name, gallery(change), r'0000\d\.safetensors', found)


GENERATORS = (galleries,)
