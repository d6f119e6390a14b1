"""Settings of a training that are none: by YAML, by flags, by options of models, recipes and readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from sfsc_timm.training import TrainConfig

from .case import Case
from .materials import Materials

# The data do not exist, so that a setting that is not refused costs no training: another refusal says so.
ABSENT = '/absent'
BASE: dict[str, Any] = {'data': 'folder', 'data_dir': ABSENT, 'model': 'sfsc_resnet18d', 'device': 'cpu'}
NAN, INF = float('nan'), float('inf')
WRONG: dict[str, list[Any]] = {
    'bool': ['no', 'false', 2, 0.5, [True], None],
    'int': ['many', 2.5, True, NAN, INF, -7, 10**30, [1], {'a': 1}, None],
    'float': ['much', True, NAN, INF, [0.1], {}, -3.0, None],
    'str': [5, True, None, ['a'], {'a': 1}, 2.5],
    'list[int]': ['3', 3, [3, 'x', 4], [3, -1, 4], [3, 2.5, 4], [], [1] * 7],
    'list[float]': ['0.5', 127, [NAN], ['x'], [-1.0], [], [None]],
    'dict': ['a=1', 5, ['a'], {1: 2}],
}
# Where the value is a legal one after all.
LEGAL: dict[str, tuple[Any, ...]] = {'momentum': (), 'data_kwargs': (), 'warmup_lr': (), 'wandb_project': ()}


def _kind(hint: Any) -> str:
    text = getattr(hint, '__name__', None) if isinstance(hint, type) and not hasattr(hint, '__args__') else str(hint)
    text = str(text).replace(' | None', '').replace('typing.', '')
    return 'dict' if text.startswith('dict') else text


def _train(file: Path, folder: Path) -> list[str]:
    return ['train', '--config', str(file), '--output', str(folder / 'out')]


def _yaml(values: dict[str, Any] | str | bytes, name: str = 'run.yaml') -> Any:
    def prepare(folder: Path) -> list[str]:
        file = folder / name
        if isinstance(values, dict):
            file.write_text(yaml.safe_dump({**BASE, **values}))
        else:
            file.write_bytes(values.encode() if isinstance(values, str) else values)
        return _train(file, folder)

    return prepare


def _fields() -> Iterator[tuple[Field[Any], str, bool]]:
    hints = get_type_hints(TrainConfig)
    for entry in fields(TrainConfig):
        yield entry, _kind(hints[entry.name]), 'None' in str(hints[entry.name])


def yaml_values(_: Materials) -> Iterator[Case]:
    """Every setting with values of other types and out of any range."""
    for entry, kind, optional in _fields():
        for value in WRONG.get(kind, []):
            if (value is None and optional) or value in LEGAL.get(entry.name, ()):
                continue
            name = entry.name
            needle = rf'{name}|--{name.replace("_", "-")}|run\.yaml., line'
            yield Case('settings: YAML', f'{name}: {value!r}', _yaml({name: value}), needle, passed=ABSENT)


def yaml_ranges(_: Materials) -> Iterator[Case]:
    """Numbers of the right type out of the range of their setting."""
    wrong: dict[str, list[Any]] = {
        'epochs': [0],
        'lr': [0, -1],
        'momentum': [2, -0.1],
        'layer_decay': [-1, 0],
        'clip_grad': [-1],
        'grad_accum_steps': [0],
        'model_ema_decay': [1.5],
        'smoothing': [1.5],
        'hflip': [2],
        'reprob': [1.1],
        'batch_size': [0],
        'img_size': [0, 10**6],
        'drop': [1.5, -0.1],
        'drop_path': [2],
        'std': [[0], [-1, 1, 1]],
        'mean': [[127], [2, 2, 2]],
        'interpolation': ['cubic-ish'],
        'opt': ['sdg'],
        'sched': ['cosin'],
        'clip_mode': ['norms'],
        'amp_dtype': ['int8'],
        'on_error': ['ignore'],
        'eval_metric': ['best'],
        'recipe': ['sfcs'],
        'data': ['no-such'],
        'model': ['sfsc_resnet19', 'resnet18'],
        'device': ['meta', 'cuda:77'],
        'warmup_epochs': [999],
        'torchcompile': ['no-such-backend'],
        'threads': [10**6],
        'workers': [10**6],
        'input_size': [[3, 0, 32], [3, 32, 10**6]],
        'seed': [2**70],
    }
    for name, values in wrong.items():
        for value in values:
            needle = rf'{name}|--{name.replace("_", "-")}|{value}'
            yield Case('settings: ranges', f'{name}: {value!r}', _yaml({name: value}), needle, passed=ABSENT)


def flags(_: Materials) -> Iterator[Case]:
    """The same by flags."""
    base = ['train', '--data', 'folder', '--data-dir', ABSENT, '--model', 'sfsc_resnet18d', '--device', 'cpu']
    wrong = [
        ('--epochs', 'x'),
        ('--epochs', '2.5'),
        ('--epochs', '0'),
        ('--clip-grad', '-1'),
        ('--layer-decay', '-1'),
        ('--momentum', '2'),
        ('--hflip', '2'),
        ('--std', '-1'),
        ('--mean', '127'),
        ('--lr', 'nan'),
        ('--lr', 'inf'),
        ('--lr', '-0.1'),
        ('--batch-size', '0'),
        ('--batch-size', '-8'),
        ('--workers', '-1'),
        ('--threads', '1000000'),
        ('--threads', '-2'),
        ('--opt', 'adamw2'),
        ('--sched', 'linear-ish'),
        ('--img-size', '0'),
        ('--seed', '-5'),
        ('--interpolation', 'nonsense'),
        ('--drop', '7'),
        ('--model-ema-decay', 'nan'),
        ('--smoothing', '1.5'),
        ('--recipe', 'none'),
        ('--recipe-kwargs', 'no_such=1'),
        ('--recipe-kwargs', 'own_batches=7'),
        ('--recipe-kwargs', 'own_batches=half'),
        ('--model-kwargs', 'widths=0.5'),
        ('--model-kwargs', 'widths=(0,1)'),
        ('--model-kwargs', 'widths=(0.5,2)'),
        ('--model-kwargs', 'widths=(nan,1)'),
        ('--model-kwargs', 'embed_dim=0'),
        ('--model-kwargs', 'embed_dim=-3'),
        ('--model-kwargs', 'embed_dim=x'),
        ('--model-kwargs', 'no_such=1'),
        ('--model-kwargs', 'layers=[100000,100000,100000,100000]'),
        ('--model-kwargs', 'channels=[8]'),
        ('--model-kwargs', 'widths=(0.3333333,0.3333334,1)'),
        ('--data-kwargs', 'train_share=2'),
        ('--data-kwargs', 'train_share=x'),
        ('--data-kwargs', 'no_such=1'),
        ('--data-kwargs', 'novalue'),
        ('--model-kwargs', 'a=' + '(' * 300),
        ('--model-kwargs', 'widths={[]:1}'),
        ('--no-such-flag', '1'),
        ('--model-kwargs', 'widths=' + '-' * 5000 + '1'),
        ('--input-size', '3'),
        ('--device', 'abacus'),
    ]
    for flag, value in wrong:
        key = value.split('=')[0] if '-kwargs' in flag else flag.strip('-')
        needle = rf'{key}|{key.replace("-", "_")}'
        argv = [*base, flag, value]
        yield Case(
            'settings: flags',
            f'{flag} {value[:40]}',
            lambda folder, argv=argv: [*argv, '--output', str(folder / 'out')],
            needle,
            passed=ABSENT,
        )


def files(_: Materials) -> Iterator[Case]:
    """Settings files that are broken or hostile as files."""
    deep = 'recipe_kwargs: ' + '[' * 3000 + ']' * 3000
    names = 'abcdefgh'
    bomb = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
        f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]\n' for a, b in pairwise(names)
    )
    contents: list[tuple[str, str | bytes]] = [
        ('an alias bomb', bomb),
        ('an alias bomb of a setting', bomb + 'model_kwargs: *h\n'),
        ('a loop', 'model_kwargs: &m {a: *m}\n'),
        ('deep nesting', deep),
        ('a list', '- epochs\n- 2\n'),
        ('a text', 'epochs'),
        ('a tab', 'epochs:\t1\n\tlr: 2'),
        ('an open bracket', 'mean: [0.5\n'),
        ('an unknown name', 'epoch: 3\n'),
        ('a name twice', 'epochs: 1\nepochs: 2\n'),
        ('not UTF-8', b'data: \xff\xfe\n'),
        ('a NUL', b'data: \0\n'),
        ('a Python object', '!!python/object/apply:os.system [true]\n'),
        ('an impossible date', 'data: 2001-77-99\n'),
        ('a number of 6000 digits', 'epochs: ' + '9' * 6000),
        ('a number as a name', '5: 6\n'),
        ('a list as a name', '? [1, 2]\n: 3\n'),
        ('two documents', 'epochs: 1\n---\nepochs: 2\n'),
        ('three megabytes', 'data: ' + 'x' * 3_000_000),
        ('a hundred thousand layers', 'model_kwargs: {layers: [100000, 100000, 100000, 100000]}\n'),
        ('binary', bytes(range(256))),
        ('a surrogate', b'data: "\\ud800"\n'),
        ('a JSON of NaN', 'lr: .nan\n'),
    ]
    for name, content in contents:
        needle = r'layers' if 'layers' in name else r'run\.yaml|model_kwargs|epochs|data|lr|name must be one of'
        yield Case('settings: files', name, _yaml(content), needle, passed=ABSENT)
    yield Case('settings: files', 'no file', lambda folder: _train(folder / 'run.yaml', folder), r'run\.yaml')
    yield Case('settings: files', 'a folder', lambda folder: _train(folder, folder), r'no settings at')

    def pipe(folder: Path) -> list[str]:
        os.mkfifo(folder / 'run.yaml')
        return _train(folder / 'run.yaml', folder)

    yield Case('settings: files', 'a pipe', pipe, r'run\.yaml')


GENERATORS = (yaml_values, yaml_ranges, flags, files)
