"""One published width by its number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints.dense import DenseWidths
from ..checkpoints.errors import clear_errors
from ..checkpoints.load import download, load_checkpoint_model, load_configured, read_section
from ..checkpoints.save import width_name

__all__ = ['load_width']


def load_width(source: str | os.PathLike[str], width: float, *, dim: int | None = None, **kwargs: Any) -> nn.Module:
    """Loads one width of a published model: a dense model, and nothing of the others is downloaded.

    Also of the families whose channels timm fixes by the name (EfficientNet, EfficientNet-Lite, MobileNet), whose
    narrow widths timm without `import sfsc_timm` cannot make; their ONNX files are the other way.

    Its output is the embedding, which belongs to the metric space of all widths. Preprocessing is that of
    `timm.data.resolve_model_data_config(model)`.

    Args:
        source: 'user/name' or 'hf-hub:user/name'; or 'local-dir:FOLDER' or a path, for a folder with the whole model
            or with a folder for each width.
        width: Which width.
        dim: Embedding size, one of those that the model declares: its output is the first `dim` numbers alone.
        **kwargs: Further arguments of `timm.create_model`, for the Hub.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: No such repository, width or size; files that are damaged or do not fit; a branch of another metric
            space than `main`, as an interrupted publish leaves it; `num_classes`, which would replace the layer that
            makes the embedding.
        ConnectionError: No network, and not in the cache.
        PermissionError: The repository is private, and the token (if any) does not open it.
    """
    refused = sorted({'num_classes', 'global_pool', 'features_only'} & kwargs.keys())
    if refused:
        raise ValueError(
            f'{refused[0]} must be left out, got {kwargs[refused[0]]!r}: the embedding is made by the layer in the '
            "classifier's place, which it would replace. For another task create the model with timm.create_model."
        )
    name = os.fspath(source)
    if not isinstance(source, str) or name.startswith('local-dir:'):
        model = load_checkpoint_model(name, width).model
        return model.extract(model.width, dim=dim).eval()
    repo = name.removeprefix('hf-hub:').removeprefix('hf_hub:')
    if '@' in repo:
        raise ValueError(f'source must not name a revision, got {name!r}: the width chooses it; leave @... out.')
    folder = _download_checked(repo, width)
    dense, section = load_configured(folder / 'model.safetensors', **kwargs)
    return DenseWidths({width: dense.eval()}, section.get('embed_dims', ())).extract(width, dim=dim)


def _download_checked(repo: str, width: float) -> Path:
    """Folder of a width's branch, if that belongs to what `main` declares."""
    from huggingface_hub import hf_hub_download

    with clear_errors(f'hf-hub:{repo}'):
        whole = read_section(Path(hf_hub_download(repo, 'config.json')))
    if 'widths' not in whole or 'compatibility' not in whole:
        raise ValueError(f'hf-hub:{repo} was not published by sfsc-timm; load it with timm.create_model.')
    if width not in whole['widths']:
        raise ValueError(f'width must be one of {tuple(whole["widths"])} for hf-hub:{repo}, got {width!r}.')
    revision = width_name(width)
    folder = download(repo, revision)
    part = read_section(folder / 'config.json')
    # Of before there were digests of widths, both carry the id of all weights.
    key = 'digests' if 'digests' in whole else 'compatibility'
    declared, found = (section.get(key) for section in (whole, part))
    if key == 'digests':
        declared, found = ((values or {}).get(revision) for values in (declared, found))
    if part.get('width') != width or found is None or found != declared:
        raise ValueError(
            f'hf-hub:{repo}@{revision} has compatibility id {part.get("compatibility")}, main has '
            f'{whole["compatibility"]}: publishing it is under way or was interrupted. Run `sfsc-timm publish` again, '
            'or wait for it to end.'
        )
    if not (folder / 'model.safetensors').is_file():
        raise ValueError(f'hf-hub:{repo}@{revision} holds no model.safetensors; publish it again.')
    return folder
