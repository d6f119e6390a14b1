"""One width as a folder that `timm.create_model('local-dir:...')` loads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import save_for_hf

from ..models import Slimmable
from ._identity import compatibility_id

__all__ = ['SECTION', 'save_width', 'save_widths']

SECTION = 'sfsc'  # our own entry at the root of config.json; timm ignores it


def save_widths(model: Slimmable, directory: str | Path, **options: Any) -> dict[float, Path]:
    """Saves every width in a folder of its own, `directory/w0.25`, ...

    Args:
        model: The slimmable model.
        directory: Where to put the folders.
        **options: As for `save_width`.

    Returns:
        The folder of each width.
    """
    return {width: save_width(model, width, Path(directory) / f'w{width:g}', **options) for width in model.widths}


def save_width(
    model: Slimmable,
    width: float,
    directory: str | Path,
    data_config: Mapping[str, Any] | None = None,
    compatibility: str | None = None,
) -> Path:
    """Saves one width as a dense model of plain timm: config.json and model.safetensors.

    `timm.create_model('local-dir:DIRECTORY', pretrained=True)` loads it without this package; its output is the
    embedding. The folder appears whole or not at all, and replaces an older one.

    Args:
        model: The slimmable model.
        width: Which width.
        directory: The folder.
        data_config: Preprocessing to record (input_size, mean, std, interpolation, crop_pct, ...).
        compatibility: Identifies the metric space, the same for all widths; None takes `compatibility_id(model)`.

    Returns:
        The folder.

    Raises:
        ValueError: If the width is unknown or plain timm cannot express the sub-model.
    """
    directory = Path(directory)
    plain: Any = model.extract(width, plain=True)
    # The output is the embedding, made by the layer that timm takes for the classifier: num_classes=0 would lose it.
    section = {
        'width': width,
        'widths': list(model.widths),
        'embed_dim': model.embed_dim,
        'embedding': 'classifier',
        'compatibility': compatibility or compatibility_id(model),
    }
    config = {SECTION: section, 'pretrained_cfg': {'tag': f'w{width:g}'}}
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{directory.name}-', dir=directory.parent))
    try:
        save_for_hf(
            plain,
            str(temporary),
            model_config=config,
            safe_serialization=True,
            data_config=dict(data_config or {}),
        )
        temporary.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory
