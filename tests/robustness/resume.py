"""Runs that cannot go on: their settings, their state or their data are not what they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from .case import Case, call
from .materials import Materials


def run_folder(materials: Materials) -> Path:
    """A run of one epoch on a few images."""
    folder = materials.root / 'runs' / 'run'
    if not folder.exists():
        shutil.copytree(materials.images, materials.root / 'learn')
        settings = {
            'data': 'folder',
            'data_dir': str(materials.root / 'learn'),
            'data_kwargs': {'train_share': 0.67},
            'model': 'sfsc_resnet18d',
            'device': 'cpu',
            'threads': 1,
            'model_kwargs': {'channels': [8, 8, 8, 8], 'stem_width': 4, 'embed_dim': 4, 'widths': [0.5, 1.0]},
            'img_size': 32,
            'epochs': 2,
            'batch_size': 4,
            'lr': 0.01,
            'output': str(folder.parent),
            'experiment': 'run',
            'eval_interval': 1,
        }
        file = materials.root / 'run.yaml'
        file.write_text(yaml.safe_dump(settings))
        status, _, err = call(['train', '--config', str(file)], 120)
        assert status == 0, err
    return folder


def resumed(materials: Materials) -> Iterator[Case]:
    """--resume of damaged or changed runs."""
    source = run_folder(materials)

    def case(name: str, change: Callable[[Path], Any], needle: str, *more: str) -> Case:
        def prepare(folder: Path) -> list[str]:
            copied = materials.copy(source, folder)
            change(copied)
            return ['train', '--resume', str(copied), *more]

        return Case('resume', name, prepare, needle)

    def settings(**values: Any) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = folder / 'args.yaml'
            file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **values}))

        return write

    def state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            file = folder / 'last.pth.tar'
            content = torch.load(file, map_location='cpu', weights_only=False)
            torch.save(change(content), file)

        return write

    def raw(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))

    def nothing(folder: Path) -> None:
        pass

    for key, value in {
        'lr': 0.5,
        'seed': 7,
        'batch_size': 8,
        'momentum': 0.1,
        'opt': 'adamw',
        'smoothing': 0.3,
        'hflip': 0.1,
        'recipe': 'bct',
        'epochs': 9,
        'data_kwargs': {'train_share': 0.34},
        'model_kwargs': {'embed_dim': 8},
        'img_size': 64,
        'weight_decay': 0.1,
        'sched': 'step',
        'mean': [0.1],
    }.items():
        yield case(f'args.yaml with another {key}', settings(**{key: value}), key)
    for key, value in {'lr': 'x', 'epochs': 0, 'amp': 'no', 'no_such': 1}.items():
        yield case(f'args.yaml with {key}: {value!r}', settings(**{key: value}), key)
    yield case('args.yaml left out', lambda folder: (folder / 'args.yaml').unlink(), r'args\.yaml')
    yield case('args.yaml cut off', raw('args.yaml', lambda b: b[: len(b) // 2] + b'\n  ['), r'args\.yaml')
    yield case('args.yaml empty', raw('args.yaml', lambda b: b''), r'args\.yaml|data|epochs')
    for name, change in (
        ('cut off', lambda b: b[: len(b) // 2]),
        ('empty', lambda b: b''),
        ('text', lambda b: b'hello'),
    ):
        yield case(f'last.pth.tar {name}', raw('last.pth.tar', change), r'last\.pth\.tar')

    def own(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda content: {**content, 'sfsc_train': change(content['sfsc_train'])}

    def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda content: {**content, 'state_dict': {k: change(v) for k, v in content['state_dict'].items()}}

    def without(values: dict[str, Any], key: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != key}

    changes: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ('a list', lambda content: [content]),
        ('a number', lambda content: 5),
        ('without state_dict', lambda content: without(content, 'state_dict')),
        ('without our own section', lambda content: without(content, 'sfsc_train')),
        *((f'without {key}', own(lambda s, k=key: without(s, k))) for key in ('loop', 'generators')),
        *(
            (f'without {key} of the loop', own(lambda s, k=key: {**s, 'loop': without(s['loop'], k)}))
            for key in ('updates', 'optimizer')
        ),
        ('with an empty optimizer', own(lambda s: {**s, 'loop': {**s['loop'], 'optimizer': {}}})),
        ('with generators of a kind', own(lambda s: {**s, 'generators': 5})),
        ('with weights of another shape', weights(lambda v: v[:1] if v.dim() else v)),
        ('with weights as integers', weights(lambda v: v.mul(10).int())),
        ('with NaN', weights(lambda v: v * torch.nan if v.is_floating_point() else v)),
        ('with weights left out', lambda c: {**c, 'state_dict': dict(list(c['state_dict'].items())[3:])}),
    ]
    for name, change in changes:
        yield case(f'last.pth.tar {name}', state(change), r'last\.pth\.tar|checkpoint')
    for flag, value in (
        ('--lr', '0.3'),
        ('--epochs', '5'),
        ('--batch-size', '2'),
        ('--model', 'sfsc_resnet34'),
        ('--seed', '3'),
        ('--data', 'glyphs'),
        ('--threads', '1000000'),
        ('--device', 'meta'),
    ):
        key = flag.strip('-').replace('-', '.')
        yield case(f'{flag} {value}', nothing, key, flag, value)

    def other_data(folder: Path) -> list[str]:
        copied = materials.copy(source, folder)
        photos = Path(shutil.copytree(materials.root / 'learn', folder / 'learn'))
        (photos / 'id0').rename(photos / 'id7')
        settings(data_dir=str(photos))(copied)
        return ['train', '--resume', str(copied)]

    yield Case('resume', 'other identities', other_data, 'data')


GENERATORS = (resumed,)
