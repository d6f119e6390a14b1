"""Models as folders that `timm.create_model('local-dir:...')` loads: the whole slimmable model, or one width."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import save_for_hf
from torch import nn

from ..data import DECODING
from ..models import Slimmable
from .declared import width_name
from .folders import replacing_folder
from .identity import compatibility_id, space_id, state_digest, weights_digest
from .submodel import embedding_layer, sub_model

__all__ = ['SECTION', 'save_model', 'save_width', 'save_widths', 'width_name']

SECTION = 'sfsc'  # our own entry at the root of config.json; timm ignores it
# What timm's config says of the weights that training may have started from.
_ANCESTRY = dict.fromkeys(('license', 'description', 'origin_url', 'paper_name', 'notes'))


def save_widths(model: Slimmable, directory: str | Path, **options: Any) -> dict[float, Path]:
    """Saves every width in a folder of its own, `directory/w0.25`, ...

    Args:
        model: The slimmable model.
        directory: Where to put the folders.
        **options: As for `save_width`.

    Returns:
        The folder of each width.
    """
    return {width: save_width(model, width, Path(directory) / width_name(width), **options) for width in model.widths}


def save_width(
    model: Slimmable,
    width: float,
    directory: str | Path,
    data_config: Mapping[str, Any] | None = None,
    compatibility: str | None = None,
    license: str | None = None,  # noqa: A002  the entry's name
    allow_plugin: bool = False,
    space: str | None = None,
    dim: int | None = None,
) -> Path:
    """Saves one width as a dense model: config.json and model.safetensors.

    `timm.create_model('local-dir:DIRECTORY', pretrained=True)` loads it without this package; its output is the
    embedding. The folder appears whole or not at all, and replaces an older one.

    Args:
        model: The slimmable model.
        width: Which width.
        directory: The folder.
        data_config: Preprocessing to record (input_size, mean, std, interpolation, crop_pct, ...).
        compatibility: Identifies the checkpoint, the same for all widths; None takes `compatibility_id(model)`.
        license: Licence of the weights.
        allow_plugin: Where plain timm cannot express the sub-model, save it in a form that timm loads once this
            package is imported.
        space: Identifies the metric space; None takes `space_id(model)`. Give that of another checkpoint only if this
            width was fitted to its φ.
        dim: One of the model's `embed_dims`: the saved model makes the first `dim` numbers alone (None: all).

    Returns:
        The folder.

    Raises:
        ValueError: If the width or size is unknown, or plain timm cannot express the sub-model and `allow_plugin` is
            off.
    """
    dense, _ = sub_model(model, width, allow_plugin=allow_plugin, dim=dim)
    section = {
        'width': width,
        'widths': list(model.widths),
        'embed_dim': model.embed_dim if dim is None else dim,
        **_sizes(model, dim),
        'embedding': embedding_layer(dense),
        'compatibility': compatibility or compatibility_id(model),
        'space': space or space_id(model),
        'digests': {width_name(width): weights_digest(model, width)},
    }
    # Where the embedding is made by the layer that timm takes for the classifier, num_classes=0 would lose it and give
    # features of another space. timm drops only a layer that is named as the classifier; for another, loading fails.
    args: dict[str, Any] = {} if isinstance(dense, Slimmable) else {'classifier': None}
    return _save(dense, Path(directory), section, width_name(width), data_config, license, changes=args)


def save_model(
    model: Slimmable,
    directory: str | Path,
    data_config: Mapping[str, Any] | None = None,
    compatibility: str | None = None,
    license: str | None = None,  # noqa: A002  the entry's name
    space: str | None = None,
) -> Path:
    """Saves a whole slimmable model, all widths: config.json (architecture, model_args) and model.safetensors.

    `timm.create_model('local-dir:DIRECTORY', pretrained=True)` loads it once this package is imported. The folder
    appears whole or not at all, and replaces an older one.

    Args:
        model: The slimmable model, of `timm.create_model`.
        directory: The folder.
        data_config: Preprocessing to record (input_size, mean, std, interpolation, crop_pct, ...).
        compatibility: Identifies the checkpoint; None takes `compatibility_id(model)`.
        license: Licence of the weights.
        space: Identifies the metric space; None takes `space_id(model)`.

    Returns:
        The folder.

    Raises:
        ValueError: If the model was not made by `timm.create_model`, which knows how to make it again.
    """
    if not hasattr(model, 'pretrained_cfg'):
        raise ValueError(
            f'model must be made by timm.create_model to be saved, got one of {type(model).__name__}.build'
        )
    section = {
        'widths': list(model.widths),
        'embed_dim': model.embed_dim,
        **_sizes(model),
        'embedding': embedding_layer(model),
        'compatibility': compatibility or compatibility_id(model),
        'space': space or space_id(model),
        'digests': {width_name(width): weights_digest(model, width) for width in model.widths},
    }
    # Recorded in any case, so that the folder outlives a change of the defaults.
    args = {'widths': list(model.widths), 'embed_dim': model.embed_dim, **_sizes(model)}
    return _save(model, Path(directory), section, 'sfsc', data_config, license, args)


def _sizes(model: Slimmable, dim: int | None = None) -> dict[str, Any]:
    """The entry of the sizes up to `dim`, none where the model has but one."""
    sizes = [size for size in model.embed_dims if dim is None or size <= dim]
    return {'embed_dims': sizes} if len(model.embed_dims) > 1 else {}


def _save(
    model: nn.Module,
    directory: Path,
    section: dict[str, Any],
    tag: str,
    data_config: Mapping[str, Any] | None,
    license: str | None,  # noqa: A002
    model_args: dict[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    cfg = {**_ANCESTRY, 'tag': tag, 'license': license, 'paper_ids': 'arXiv:2206.08289', **(changes or {})}
    section = {**section, 'weights': state_digest(model.state_dict()), 'decoding': DECODING}
    with replacing_folder(directory) as temporary:
        save_for_hf(
            model,
            str(temporary),
            model_config={SECTION: section, 'pretrained_cfg': cfg},
            model_args=model_args,
            safe_serialization=True,
            data_config=dict(data_config or {}),
        )
        if 'width' in section:
            _say_classes_once(temporary / 'config.json')
        temporary.chmod(0o755)  # temporary folders, and what safetensors writes, are for their owner alone
        for file in temporary.iterdir():
            file.chmod(0o644)
    return directory


def _say_classes_once(config: Path) -> None:
    """Takes the number of classes out of model_args; the root of the config and its pretrained_cfg have it.

    timm reads it there, and so does transformers, which passes model_args on beside it and fails on a second one.
    """
    values = json.loads(config.read_text(encoding='utf-8'))
    values['model_args'].pop('num_classes', None)
    config.write_text(json.dumps(values, indent=2), encoding='utf-8')  # in a folder that nobody sees yet
