"""Checkpoints that ship with the package, as pretrained configurations of the zoo.

They are files of the package `sfsc_timm.weights` (the top-level folder `weights/` of a checkout) with a manifest.json:
architecture and tag ('sfsc_resnet50.sfsc_emoji') to the file, its size in bytes and the configuration. It is read here,
when the models register, as a plain file, so that the import stays cheap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ['MANIFEST', 'shipped_id', 'weights_folder', 'with_shipped']

MANIFEST = 'manifest.json'


def weights_folder() -> Path:
    """Where the checkpoints lie: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / 'weights'
    return installed if installed.is_dir() else package.parent / 'weights'


def shipped_id(file: str | Path) -> str | None:
    """Id of all weights that the manifest declares for a shipped file; None for a file that does not ship."""
    path = Path(file)
    try:
        manifest = json.loads((path.parent / MANIFEST).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    return next((str(entry['compatibility']) for entry in manifest.values() if entry['file'] == path.name), None)


def with_shipped(cfgs: Mapping[str, dict[str, Any]], folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Puts the shipped checkpoints of a family in front of its other configurations, so that they are the default.

    Only what is really there is taken: a file that is missing or has another size (a download cut off, a pointer of
    Git LFS) is left out, and `timm.list_pretrained` does not list it.

    Args:
        cfgs: The family's configurations, by architecture and tag.
        folder: Where the manifest lies (None: `weights_folder`).
    """
    folder = folder or weights_folder()
    try:
        manifest: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return dict(cfgs)
    base = {name.partition('.')[0]: cfg for name, cfg in cfgs.items()}
    shipped = {}
    for name, entry in manifest.items():
        architecture, path = name.partition('.')[0], folder / entry['file']
        if architecture in base and path.is_file() and path.stat().st_size == entry['bytes']:
            kept = {key: base[architecture].get(key) for key in ('first_conv', 'classifier')}
            cfg = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in entry['pretrained_cfg'].items()
            }
            shipped[name] = {**kept, **cfg, 'file': str(path)}
    return {**shipped, **cfgs}
