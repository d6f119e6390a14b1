"""What a run began with: the settings and the data that a resumed one must have, too."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import RetrievalData, Sample
from .config import TrainConfig

__all__ = ['check_data', 'check_settings_kept', 'origin_of', 'settings_in', 'settings_of', 'words_on_bits']

# What a checkpoint's arguments hold in another form than the settings.
_RESOLVED = ('model_kwargs', 'input_size', 'mean', 'std', 'interpolation')


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run computes, as JSON has them."""
    free = {entry.name for entry in fields(config) if entry.metadata.get('runtime')}
    return {name: _as_json(value) for name, value in asdict(config).items() if name not in free}


def origin_of(config: TrainConfig, data: RetrievalData, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds of settings, data and machine; plain values.

    Args:
        config: Settings.
        data: The data set.
        device: Where the run computes.
    """
    root = Path(config.data_dir or '')
    splits = {name: _fingerprint(getattr(data, name), root) for name in ('train', 'query', 'gallery')}
    machine = {'threads': torch.get_num_threads(), 'device': device.type}
    return {'settings': settings_of(config), 'data': splits, 'machine': machine}


def settings_in(checkpoint: Mapping[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings by which a checkpoint was trained, as far as it holds them.

    Args:
        checkpoint: As it was read.
        origin: What it holds of `origin_of`; None in one from before there was such.
    """
    if origin is not None:
        return dict(origin['settings'])
    args = checkpoint['args'] if isinstance(checkpoint.get('args'), argparse.Namespace) else argparse.Namespace()
    return {name: _as_json(value) for name, value in vars(args).items() if name not in _RESOLVED}


def check_settings_kept(
    checkpoint: Mapping[str, Any], origin: Mapping[str, Any] | None, now: Mapping[str, Any], extends: bool
) -> None:
    """Checks that a run goes on by the settings that it began with.

    Args:
        checkpoint: As it was read.
        origin: What the checkpoint holds of `origin_of`; None in one from before there was such.
        now: Of `settings_of`.
        extends: Whether there may be more epochs.

    Raises:
        ValueError: A setting differs; the message names it.
    """
    before = settings_in(checkpoint, origin)
    for name, value in now.items():
        if name not in before or before[name] == value or (name == 'epochs' and extends and value > before[name]):
            continue
        way = 'set it back in args.yaml, or start a new run from these weights with --initial-checkpoint'
        if name == 'epochs' and value > before[name]:
            way = f'--extend {value} goes on to so many, by their schedule'
        raise ValueError(f'{name} must be {before[name]!r}, by which the run was trained so far, got {value!r}; {way}')


def check_data(origin: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Checks that a run goes on with the data that it began with: the same images of the same identities, in order.

    Args:
        origin: What the checkpoint holds of `origin_of`; None in one from before there was such.
        now: Of `origin_of`.

    Raises:
        ValueError: A split differs; the message names it.
    """
    for split, before in (origin or {}).get('data', {}).items():
        found = now['data'][split]
        if found == before:
            continue
        what = 'files, labels or their order differ'
        if any(found[name] != before[name] for name in ('images', 'identities')):
            what = f'got {_counts(found)}'
        raise ValueError(
            f'data must be what the run began with, {_counts(before)} in {split}, but {what}; give back the data, or '
            'start a new run from these weights with --initial-checkpoint'
        )


def words_on_bits(origin: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """What to say where a run goes on otherwise than bit for bit, None where it does not."""
    before, after = (origin or now)['machine'], now['machine']
    changed = [f'{name}: {before[name]} before, {after[name]} now' for name in after if before[name] != after[name]]
    if not changed:
        return None
    return f'{", ".join(changed)}; the last bits may differ from those of a run without the interruption'


def _counts(found: Mapping[str, Any]) -> str:
    return f'{found["images"]} images of {found["identities"]} identities'


def _fingerprint(samples: Sequence[Sample], root: Path) -> dict[str, Any]:
    """Number of images and identities, and a digest of labels and images, of files by path below `root` and size."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        digest.update(f'{sample.identity} {sample.camera} '.encode())
        if isinstance(sample.image, np.ndarray):
            digest.update(repr(sample.image.shape).encode())
            digest.update(np.ascontiguousarray(sample.image).data)
        else:
            path = Path(sample.image)
            name = path.relative_to(root) if path.is_relative_to(root) else path
            size = path.stat().st_size if path.is_file() else None
            digest.update(f'{name.as_posix()} {size}\n'.encode('utf-8', 'surrogateescape'))
    identities = len({sample.identity for sample in samples})
    return {'images': len(samples), 'identities': identities, 'digest': digest.hexdigest()}


def _as_json(value: Any) -> Any:
    """A value as it comes back from JSON or YAML: tuples as lists."""
    return json.loads(json.dumps(value, default=str))
