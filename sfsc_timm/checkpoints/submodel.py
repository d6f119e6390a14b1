"""One width in the form in which it is saved: plain timm's where that exists, the plugin's otherwise."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from .._private import get_model_input_config
from ..models import Slimmable
from ..models._sizes import check_size
from ..slim import densify
from .read import fill

__all__ = ['embedding_layer', 'relative_error', 'sub_model']

_TOLERANCE = 1e-5  # of the largest value


def sub_model(
    model: Slimmable, width: float, allow_plugin: bool = False, dim: int | None = None
) -> tuple[nn.Module, bool]:
    """Dense model of one width whose output is the embedding, as a config of timm's can describe it.

    It is compared with the slimmable model before it is returned, so what gets saved embeds as the model does.

    Args:
        model: The slimmable model, of `timm.create_model`.
        width: Which width.
        allow_plugin: Give a model of this package where plain timm cannot express the sub-model.
        dim: One of the model's `embed_dims`: give the first `dim` numbers alone (None: all).

    Returns:
        The model in evaluation mode, and whether plain timm can make it.

    Raises:
        ValueError: If the width or size is unknown, or no allowed form expresses the sub-model.
    """
    with model.at_width(width):
        width = model.width
    if dim is not None:
        check_size(model.embed_dims, dim)
    try:
        plain = model.extract(width, plain=True, dim=dim)
        error = _difference(plain, model, width, dim)
        if error <= _TOLERANCE:
            return plain, True
        raise ValueError(f'plain timm gives another output at width {width:g} (by {error:.1g} of the largest value)')
    except ValueError:
        if not allow_plugin:
            raise
    own = _lone(model, width, dim)
    if (error := _difference(own, model, width, dim)) > _TOLERANCE:
        raise ValueError(f'width {width:g} cannot be saved: its dense form gives another output (by {error:.1g})')
    return own, False


def embedding_layer(model: nn.Module) -> str:
    """Name of the layer that makes the embedding: the neck, or in plain timm's models the place of the classifier."""
    if isinstance(model, Slimmable):
        return 'neck' if model.embed_dim else 'none'
    name: str = model.pretrained_cfg['classifier']  # type: ignore[index,assignment]
    return name


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max|a - b| / max|b| of two embeddings of one shape; infinite if either is not finite."""
    error = ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    return error if error == error else float('inf')  # noqa: PLR0124  NaN


def _difference(dense: nn.Module, model: Slimmable, width: float, dim: int | None) -> float:
    """By how much a dense model differs from the slimmable one on a batch of noise."""
    size = (2, *get_model_input_config(model)['input_size'])
    parameter = next(model.parameters())
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(parameter.device, parameter.dtype)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.at_width(width):
            expected = model.embed(noise, dim)
            return relative_error(dense.eval()(noise), expected)
    finally:
        model.train(training)


def _lone(model: Slimmable, width: float, dim: int | None) -> nn.Module:
    """The network of this package that is as narrow as the sub-model and has that one width, and sizes up to `dim`."""
    sizes = [size for size in model.embed_dims if dim is None or size <= dim]
    args: dict[str, Any] = {
        **{
            name: value
            for name, value in getattr(model, '_model_args', {}).items()
            if name not in ('embed_dims', 'own_necks')
        },
        'widths': [1.0],
        'width': 1.0,
        'full_width': model._full_width * width,
        'embed_dim': max(sizes, default=0),
        'neck_norm': model._neck_norm,
        'num_classes': 0,
        **({'embed_dims': sizes} if len(sizes) > 1 else {}),
    }
    narrow: Any = timm.create_model(model.pretrained_cfg['architecture'], **args).eval()
    with model.at_width(width):
        state = densify(model).state_dict()
    if dim is not None:
        state = {k: t[:dim] if k.startswith('neck.') and t.ndim and len(t) > dim else t for k, t in state.items()}
    own = narrow.state_dict()
    # A slimmable norm counts its batches for each width, here for the one that there is.
    fitting = {k: t.reshape(own[k].shape) if k in own and t.numel() == own[k].numel() else t for k, t in state.items()}
    fill(narrow, {key: tensor for key, tensor in fitting.items() if not key.startswith('fc.')}, f'width {width:g}')
    narrow.pretrained_cfg = narrow.default_cfg = {**model.pretrained_cfg, 'num_classes': 0}
    return narrow
