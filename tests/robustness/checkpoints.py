"""Checkpoints that were damaged, swapped or forged: a search gives the same matches, or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from helpers.checkpoints import DATA_CONFIG, save_training, tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sfsc_timm.checkpoints import save_model, save_width

from .case import Case
from .damage import BROKEN, json_changes
from .materials import DEVICE, Materials


def _checkpoint(
    materials: Materials, change: Callable[[Path], Any], *, whole: bool = False
) -> Callable[[Path], list[str]]:
    """A search by a changed copy of a checkpoint folder."""

    def prepare(folder: Path) -> list[str]:
        copied = materials.copy(materials.whole if whole else materials.narrow, folder)
        change(copied)
        more = ['--width', '0.5', '--force'] if whole else []
        return materials.search(None, copied, *more)

    return prepare


def configs(materials: Materials) -> Iterator[Case]:
    """config.json of a width, and of a whole model."""
    for source, whole in ((materials.narrow, False), (materials.whole, True)):
        content = json.loads((source / 'config.json').read_text())
        baseline = (lambda: materials.found_by_whole) if whole else (lambda: materials.found)
        label = 'whole' if whole else 'width'
        for name, new in islice(json_changes(content), whole, None, 3):

            def write(folder: Path, new: Any = new) -> None:
                (folder / 'config.json').write_text(json.dumps(new))

            prepare = _checkpoint(materials, write, whole=whole)
            needle = f'{source.name}|metric space'
            yield Case('checkpoints: config.json', f'{label}, {name}', prepare, needle, baseline)
    for name, text in BROKEN:

        def put(folder: Path, text: bytes = text) -> None:
            (folder / 'config.json').write_bytes(text)

        yield Case(
            'checkpoints: config.json', f'{name}', _checkpoint(materials, put), r'config\.json', lambda: materials.found
        )


def weights(materials: Materials) -> Iterator[Case]:
    """Weights beside a sound config.json."""

    def stored(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = folder / 'model.safetensors'
            state = load_file(file)
            metadata = safe_open(file, 'pt').metadata()
            state = change(state) or state
            save_file({k: v.contiguous() for k, v in state.items()}, file, metadata)

        return write

    def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = folder / 'model.safetensors'
            file.write_bytes(change(file.read_bytes()))

        return write

    def each(convert: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
        return stored(lambda state: {k: convert(v) if v.is_floating_point() else v for k, v in state.items()})

    def one(convert: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
        def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            key = next(k for k, v in state.items() if v.dim() == 4)
            return {**state, key: convert(state[key])}

        return stored(change)

    def of_another(folder: Path) -> None:
        save_width(tiny(1, widths=(0.5, 1.0)), 0.5, folder.parent / 'other', data_config=DATA_CONFIG)
        shutil.copy(folder.parent / 'other' / 'model.safetensors', folder)

    changes: list[tuple[str, Callable[[Path], Any]]] = [
        ('of another model', of_another),
        ('of another width', lambda f: shutil.copy(materials.widths / 'w1' / 'model.safetensors', f)),
        ('perturbed', one(lambda t: t + 0.1)),
        ('with a NaN', one(lambda t: torch.full_like(t, torch.nan))),
        ('with an inf', one(lambda t: t * torch.inf)),
        ('as integers', each(lambda t: t.mul(10).to(torch.int32))),
        ('as bool', each(lambda t: t > 0)),
        ('as complex', each(lambda t: t.to(torch.complex64))),
        ('one as integers', one(lambda t: t.mul(10).to(torch.int8))),
        ('one of another shape', one(lambda t: t[:1])),
        ('one transposed', one(lambda t: t.transpose(0, 1))),
        ('as float16', each(lambda t: t.half())),
        ('one left out', stored(lambda s: dict(list(s.items())[1:]))),
        ('one too many', stored(lambda s: {**s, 'x': torch.zeros(3)})),
        ('renamed', stored(lambda s: {f'module.{k}': v for k, v in s.items()})),
        ('empty', stored(lambda s: {'x': torch.zeros(1)})),
        ('zero', each(torch.zeros_like)),
        ('cut off', raw(lambda b: b[: len(b) // 2])),
        ('an empty file', raw(lambda b: b'')),
        ('text', raw(lambda b: b'hello world, this is no tensor')),
        ('a huge header', raw(lambda b: b'\xff' * 8 + b[8:])),
        ('a broken header', raw(lambda b: b[:8] + b'x' * 200 + b[208:])),
        ('a flipped byte', raw(lambda b: b[:-777] + bytes([b[-777] ^ 255]) + b[-776:])),
        ('bytes behind the end', raw(lambda b: b + b'x' * 99)),
        ('left out', lambda f: (f / 'model.safetensors').unlink()),
        ('a folder', lambda f: ((f / 'model.safetensors').unlink(), (f / 'model.safetensors').mkdir())),
    ]
    for name, change in changes:
        yield Case(
            'checkpoints: weights',
            name,
            _checkpoint(materials, change),
            r'w0\.5|model\.safetensors',
            lambda: materials.found,
        )
    for name, change in changes[2:5] + changes[17:20]:
        prepare = _checkpoint(materials, change, whole=True)
        yield Case('checkpoints: weights', f'whole, {name}', prepare, 'whole', lambda: materials.found_by_whole)


class _Hostile:
    def __reduce__(self) -> Any:
        return (print, ('executed',))


def training_files(materials: Materials) -> Iterator[Case]:
    """.pth.tar files, and names of checkpoints that are none."""

    def file(make: Callable[[Path], Any], *more: str) -> Callable[[Path], list[str]]:
        def prepare(folder: Path) -> list[str]:
            path = folder / 'last.pth.tar'
            make(path)
            places = [str(materials.gallery), str(materials.query), '--checkpoint', str(path)]
            return ['search', *places, '--width', '0.5', '--force', '--json', *DEVICE, *more]

        return prepare

    good = torch.load(materials.training, map_location='cpu', weights_only=False)
    state = good['state_dict']
    values: list[tuple[str, Any]] = [
        ('a list', [1, 2]),
        ('a tensor', torch.zeros(3)),
        ('an empty mapping', {}),
        ('no state', {k: v for k, v in good.items() if k != 'state_dict'}),
        ('no args', {k: v for k, v in good.items() if k != 'args'}),
        ('args of a kind', {**good, 'args': 'x'}),
        ('a state of texts', {**good, 'state_dict': {'a': 'b'}}),
        ('an empty state', {**good, 'state_dict': {}}),
        ('a state of a list', {**good, 'state_dict': [1]}),
        ('an unknown model', {**good, 'arch': 'no_such_net', 'args': None}),
        ('integers', {**good, 'state_dict': {k: v.int() for k, v in state.items()}}),
        ('NaN', {**good, 'state_dict': {k: v * torch.nan if v.is_floating_point() else v for k, v in state.items()}}),
        ('half of it', {**good, 'state_dict': dict(list(state.items())[: len(state) // 2])}),
        ('a hostile pickle', {**good, 'optimizer': _Hostile()}),
    ]
    for name, value in values:
        yield Case(
            'checkpoints: .pth.tar', name, file(lambda path, value=value: torch.save(value, path)), r'last\.pth\.tar'
        )
    raw = materials.training.read_bytes()
    for name, content in (
        ('cut off', raw[: len(raw) // 2]),
        ('empty', b''),
        ('text', b'hello'),
        ('a zip of nothing', b'PK\x05\x06' + bytes(18)),
        ('a bare pickle', b'\x80\x04N.'),
    ):
        yield Case('checkpoints: .pth.tar', name, file(lambda path, c=content: path.write_bytes(c)), r'last\.pth\.tar')

    def without(key: str) -> Callable[[Path], Any]:
        return lambda path: save_training(tiny(), path, **{key: None})

    for key in ('state_dict', 'args'):
        yield Case('checkpoints: .pth.tar', f'{key} is None', file(without(key)), r'last\.pth\.tar|model')
    names = [
        '/nope',
        '/nope/model.safetensors',
        '',
        'hf-hub:',
        'hf-hub:a/b..c',
        'local-dir:/nope',
        'no_such_net',
        str(Path('/')),
        '/dev/null',
        'a\0b',
        'x' * 5000,
    ]
    for name in names:
        places = [str(materials.gallery), str(materials.query), '--checkpoint', name]
        needle = r'checkpoint|a/b|hf-hub|nope|no_such_net|/dev/null|embed|metric space|too long|x{20}|a.x00b'
        yield Case('checkpoints: names', repr(name[:40]), lambda _, p=places: ['search', *p, *DEVICE], needle)


def whole_models(materials: Materials) -> Iterator[Case]:
    """Galleries of one space, queries of another."""

    def other(folder: Path) -> list[str]:
        save_model(tiny(3, widths=(0.5, 1.0)), folder / 'other', data_config=DATA_CONFIG)
        return materials.search(None, folder / 'other', '--width', '0.5')

    def smaller(folder: Path) -> list[str]:
        save_model(tiny(0, widths=(0.5, 1.0), embed_dim=8), folder / 'other', data_config=DATA_CONFIG)
        return materials.search(None, folder / 'other', '--width', '0.5', '--force')

    yield Case('checkpoints: spaces', 'queries of another model', other, 'metric space', lambda: materials.found)
    yield Case(
        'checkpoints: spaces', 'queries of another size, by force', smaller, '8 numbers', lambda: materials.found
    )


GENERATORS = (configs, weights, training_files, whole_models)
