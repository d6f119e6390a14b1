"""Adds a checkpoint to those that ship with the package (`sfsc_timm.weights`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from .._files import replacing, write_json
from ..checkpoints.identity import compatibility_id
from ..checkpoints.load import Checkpoint
from ..checkpoints.measurements import width_cost
from ..checkpoints.read import fill
from ..checkpoints.source import Source, read_source
from ..checkpoints.submodel import embedding_layer, relative_error, sub_model
from ..models import Slimmable
from ..models._shipped import MANIFEST, weights_folder
from .card import shipped_card
from .card_content import About, CardContent, PublishedWidth

__all__ = ['ship']

_FILE_LIMIT, _TOTAL_LIMIT = 50_000_000, 100_000_000  # bytes
_TOLERANCE = 0.02  # of the largest value; rounding to half precision moves embeddings by about 0.001


def ship(
    source: str | os.PathLike[str],
    tag: str,
    *,
    folder: str | Path | None = None,
    about: About | None = None,
    matrix: str | os.PathLike[str] | None = None,
    **loading: Any,
) -> Path:
    """Writes a checkpoint in half precision, without its classifier, with its card, and enters it in the manifest.

    From the next import on, `timm.create_model('ARCHITECTURE.TAG', pretrained=True)` gives it, and so does the bare
    architecture: the first shipped tag is its default, with num_classes=0 at the checkpoint's resolution.

    Args:
        source: A slimmable checkpoint or run, see `publish`, with the default arguments of its architecture.
        tag: Name of the weights, such as 'sfsc_emoji'.
        folder: Where the manifest lies (None: this package's).
        about: What the card says that cannot be measured.
        matrix: Measured accuracy (None: matrix.json beside the checkpoint, if it is there).
        **loading: As for `load_checkpoint_model`.

    Returns:
        The file of the weights.

    Raises:
        ValueError: It is not such a model, its weights do not fit half precision, or it would be too large to ship.
    """
    about = about or About()
    read = read_source(source, matrix, about.note, **loading)
    folder = weights_folder() if folder is None else Path(folder)
    if len(read.model.embed_dims) > 1:
        raise ValueError(
            f'a shipped checkpoint must have one embedding size, got embed_dims={read.model.embed_dims}: it is made '
            'again by the default arguments of its architecture; publish this one'
        )
    architecture = read.model.pretrained_cfg['architecture']
    name = f'{architecture}.{tag}'
    state = {key: _half(key, tensor) for key, tensor in read.model.state_dict().items() if not key.startswith('fc.')}
    rounded: Any = timm.create_model(architecture, num_classes=0)
    # As `pretrained=True` does; only the default arguments will fit.
    fill(rounded, {k: t.float() if t.is_floating_point() else t for k, t in state.items()}, name)
    _compare(rounded.eval(), read.model, read.checkpoint.preprocessing.input_size)
    entry = {
        'file': f'{name}.safetensors',
        'compatibility': compatibility_id(rounded),
        'pretrained_cfg': _configuration(read.checkpoint, rounded, about.license),
    }
    size = _write_weights(folder, name, state)
    with replacing(folder / f'{name}.md') as temporary:
        temporary.write_text(_card(read, rounded.eval(), name, about), encoding='utf-8')
    write_json(folder / MANIFEST, {**_read_manifest(folder), name: {**entry, 'bytes': size}})
    return folder / f'{name}.safetensors'


def _compare(rounded: Slimmable, model: Slimmable, input_size: tuple[int, ...]) -> None:
    """Sees to it that a rounded model of default arguments embeds as the checkpoint does."""
    noise = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    for width in model.widths:
        with torch.no_grad(), model.at_width(width), rounded.at_width(width):
            expected = model.embed(noise)
            error = relative_error(rounded(noise), expected)
        if error > _TOLERANCE:
            raise ValueError(
                f'width {width:g} embeds differently by {error:.1g} of the largest value: the checkpoint was made with '
                'other than the default arguments, or half precision is too coarse for it.'
            )


def _write_weights(folder: Path, name: str, state: dict[str, torch.Tensor]) -> int:
    """Writes the weights if they are small enough; returns their bytes."""
    with replacing(folder / f'{name}.safetensors') as temporary:
        save_file(state, temporary)
        temporary.chmod(0o644)  # safetensors writes for its owner alone, and wheels keep that
        size = temporary.stat().st_size
        total = size + sum(entry['bytes'] for other, entry in _read_manifest(folder).items() if other != name)
        if size > _FILE_LIMIT or total > _TOTAL_LIMIT:
            raise ValueError(
                f'{name} takes {size / 1e6:.1f} MB and all weights {total / 1e6:.1f} MB, allowed are '
                f'{_FILE_LIMIT / 1e6:.0f} and {_TOTAL_LIMIT / 1e6:.0f} MB; ship a smaller architecture.'
            )
    return size


def _card(read: Source, model: Slimmable, name: str, about: About) -> str:
    """The card, from what `publish` writes it from; costs are those of the checkpoint, which rounding leaves alone."""
    checkpoint, parts = read.checkpoint, []
    size = checkpoint.preprocessing.input_size
    dense: Any
    for width in model.widths:
        dense, plain = sub_model(model, width, allow_plugin=True)
        cost = width_cost(
            read.folder, checkpoint.compatibility, width, size, lambda dense=dense: dense  # type: ignore[misc]
        )  # fmt: skip
        parts.append(
            PublishedWidth(width, dense.pretrained_cfg['architecture'], plain, cost, embedding_layer(dense), 0)
        )
    content = CardContent(
        name, model.pretrained_cfg['architecture'], compatibility_id(model), model.embed_dim,
        checkpoint.preprocessing, tuple(parts), about, read.arguments, read.matrix, read.of_this_model,
    )  # fmt: skip
    return shipped_card(content, name)


def _configuration(checkpoint: Checkpoint, model: Any, license: str | None) -> dict[str, Any]:  # noqa: A002
    """Pretrained configuration of the checkpoint."""
    with torch.no_grad():
        pooled = model.eval().forward_features(torch.zeros(1, *checkpoint.preprocessing.input_size)).shape[-2:]
    return {
        'num_classes': 0,
        'pool_size': tuple(pooled),
        **checkpoint.preprocessing.to_dict(),
        'license': license,
        'paper_ids': 'arXiv:2206.08289',
    }


def _half(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half().contiguous()
    if not half.isfinite().all():
        raise ValueError(f'{key} is too large for half precision: up to {tensor.abs().max():.3g}.')
    return half


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    return dict(json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else {}
