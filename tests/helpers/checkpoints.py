"""Tiny untrained checkpoints in every layout, and miniature data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

import sfsc_timm  # noqa: F401  registers the models

ARGS: dict[str, Any] = {'channels': (8, 16, 32, 64), 'stem_width': 4, 'embed_dim': 16}
DATA_CONFIG = {'input_size': (3, 32, 32), 'mean': (0.5, 0.4, 0.3), 'std': (0.25,) * 3, 'crop_pct': 1.0}


def tiny(seed: int = 0, **kwargs: Any) -> Any:
    """An untrained slimmable model whose normalisations differ between widths."""
    torch.manual_seed(seed)
    model: Any = timm.create_model('sfsc_resnet18d', num_classes=5, **{**ARGS, **kwargs})
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith('running_var'):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith('running_mean'):
                tensor.normal_(std=0.1)
    return model.eval()


def save_whole(model: Any, folder: Path) -> Path:
    """A slimmable model in timm's local-dir layout."""
    save_for_hf(model, str(folder), safe_serialization=True, data_config=DATA_CONFIG)
    return folder


def save_training(model: Any, path: Path, **changes: Any) -> Path:
    """What timm's train.py writes."""
    args = argparse.Namespace(
        model='sfsc_resnet18d', num_classes=5, in_chans=None, input_size=None, img_size=32, gp=None,
        model_kwargs=ARGS, mean=[0.5], std=[0.25], crop_pct=1.0, interpolation='bilinear', epochs=3,
    )  # fmt: skip
    content = {'epoch': 2, 'arch': args.model, 'args': args, 'state_dict': model.state_dict(), 'version': 2}
    torch.save({**content, **changes}, path)
    return path


def paint(root: Path, identities: int = 3, images: int = 4, size: int = 32) -> list[Path]:
    """One folder of pictures per identity, named id0, id1, ..."""
    random = np.random.default_rng(0)
    files = []
    for i in range(identities):
        base = random.integers(0, 256, (4, 4, 3))
        for j in range(images):
            noisy = (base + random.normal(0, 20, base.shape)).clip(0, 255).astype(np.uint8)
            path = root / f'id{i}' / f'{j}_c{j % 2}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).resize((size, size)).save(path)
            files.append(path)
    return files
