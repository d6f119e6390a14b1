"""Runs small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

SETTINGS: dict[str, Any] = {
    'data': 'glyphs',
    'data_kwargs': {'train_identities': 12, 'test_identities': 6},
    'model': 'sfsc_resnet18d',
    'model_kwargs': {
        'channels': [16, 16, 32, 32],
        'stem_width': 8,
        'embed_dim': 8,
        'widths': [0.5, 1.0],
        'in_chans': 1,
        'classifier_type': 'cosine',
    },
    'img_size': 16,
    'epochs': 2,
    'batch_size': 32,
    'eval_interval': 0,
    'lr': 0.05,
    'threads': 1,
    'device': 'cpu',
}


def same_states(a: dict[str, Any], b: dict[str, Any], path: str = '') -> list[str]:
    """Entries in which two checkpoints differ, bit for bit; what time it took, and where, does not count."""
    found = []
    for key in a.keys() | b.keys():
        one, two, name = a.get(key), b.get(key), f'{path}.{key}'
        if key in ('seconds', 'args', 'machine'):
            continue
        if isinstance(one, dict) and isinstance(two, dict):
            found += same_states(one, two, name)
        elif isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
            found += [] if torch.equal(one, two) else [name]
        elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
            found += same_states(dict(enumerate(one)), dict(enumerate(two)), name)
        elif one != two:
            found.append(name)
    return found
