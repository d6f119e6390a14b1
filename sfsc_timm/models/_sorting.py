"""Channels in the order of their importance, so that the leading slices of a pretrained network hold what matters.

The order of channels is arbitrary in a network that was trained as a whole, and narrow widths, which are its leading
slices, get a random part of it. Once-for-all networks (Cai et al., ICLR 2020, https://arxiv.org/abs/1908.09791) sort
channels by the norm of the weights that read them; here, what is read counts, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._private import get_model_input_config
from ._channels import ChannelGroup, trace_channels
from ._factory import _stored
from ._slimmable import Slimmable

__all__ = ['sort_channels']

_TOLERANCE = 1e-6  # of the output's largest value, in float64


@torch.no_grad()
def sort_channels(model: Slimmable, images: Tensor | Iterable[Tensor] | None = None) -> Tensor:
    """Permutes the channels of a slimmable model in place, the most important ones first; width 1.0 stays what it is.

    For a model that has just got the weights of a network trained as a whole, before it trains. There is one order for
    each residual stream, one for each inner expansion, and one for the heads of each attention, which move whole. A
    channel counts by the energy that it brings to the layers which read it: the mean square of its values times that of
    the weights on them, as a share of the layer's.

    At width 1.0 the function changes by rounding only, which is checked before anything is written. Without neck and
    classifier the output is the pooled features: they come in the new order. The norms of every narrower width start
    again as the leading slice of the full one's.

    Args:
        model: The slimmable model; its mode and width stay.
        images: A few hundred images (B, C, H, W), normalised as the model wants them, or batches of them. None: by the
            weights alone and what they make of smooth noise, which is better than no order and worse than by images.

    Returns:
        Where the pooled features of width 1.0 come from, shape (F,): number i was number `order[i]` before.

    Raises:
        ValueError: There are no images.
        RuntimeError: The output would change, as the network does something that `trace_channels` does not know.
    """
    batches = _batches(model, images)
    dense: Any = model.extract(1.0, head=bool(model.num_classes) and not model.embed_dim).float()
    groups = trace_channels(dense, batches, keep_output=bool(model.num_classes or model.embed_dim))
    state = dense.state_dict()
    orders = [_order(group, state) for group in groups]
    final = f'{type(model).classifier_name}.weight' if model.num_classes or model.embed_dim else ''
    read_last = [order for group, order in zip(groups, orders, strict=True) if final in group.readers]
    features = read_last[0] if read_last else torch.arange(dense.head_hidden_size)
    permuted = _permuted(state, groups, orders)
    _check_same(dense, permuted, batches[0][:8], None if final else features)
    _take_over(model, permuted, final, features)
    return features


def _batches(model: Slimmable, images: Tensor | Iterable[Tensor] | None) -> list[Tensor]:
    found = [_noise(model)] if images is None else [images] if isinstance(images, Tensor) else list(images)
    if not found or not all(map(len, found)):
        raise ValueError('images must hold at least one image, got none; leave it out to sort without images')
    device = next(model.parameters()).device
    return [batch.to(device, torch.float32) for batch in found]


def _noise(model: Any) -> Tensor:
    """Eight images that are smooth at the scale of a few pixels, as photographs are; the same ones always."""
    channels, *size = get_model_input_config(model)['input_size']
    coarse = torch.randn(8, channels, *(max(1, n // 8) for n in size), generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, tuple(size), mode='bicubic')


def _importance(group: ChannelGroup, state: Mapping[str, Tensor]) -> Tensor:
    """How much each channel of a group matters, shape (group.size,)."""
    total = torch.zeros(group.size, dtype=torch.float64, device=next(iter(state.values())).device)
    for name, energy in group.readers.items():
        share = energy * state[name].double().square().transpose(0, 1).flatten(1).sum(1) if name else energy
        total += share / share.sum().clamp_min(1e-30)
    return total


def _order(group: ChannelGroup, state: Mapping[str, Tensor]) -> Tensor:
    """The channels of a group, the most important ones, or blocks of them, first, shape (group.size,)."""
    blocks = torch.arange(group.size, device=next(iter(state.values())).device).unflatten(0, (-1, group.block))
    importance = _importance(group, state).unflatten(0, (-1, group.block)).sum(1)
    return blocks[importance.argsort(descending=True, stable=True)].flatten()


def _permuted(
    state: Mapping[str, Tensor], groups: Iterable[ChannelGroup], orders: Iterable[Tensor]
) -> dict[str, Tensor]:
    permuted = dict(state)
    for group, order in zip(groups, orders, strict=True):
        for name, dim in group.places:
            packed = permuted[name].unflatten(dim, (-1, len(order)))  # queries, keys and values, or one part
            permuted[name] = packed.index_select(dim + 1, order).flatten(dim, dim + 1)
    return permuted


def _check_same(dense: nn.Module, permuted: Mapping[str, Tensor], images: Tensor, order: Tensor | None) -> None:
    """Compares the network before and after; `order` is that of the output's own channels."""
    before = deepcopy(dense).cpu().double()
    after = deepcopy(before)
    after.load_state_dict({name: tensor.cpu() for name, tensor in permuted.items()})
    inputs = images.cpu().double()
    expected, found = before(inputs), after(inputs)
    if order is not None:
        expected = expected.index_select(1, order.cpu())
    error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    if not error <= _TOLERANCE:
        raise RuntimeError(
            f'the channels of {type(dense).__name__} cannot be sorted: its output would change by {error:.1e}, more '
            f'than {_TOLERANCE}; trace_channels has to be told what the network does. The model is as it was'
        )


def _take_over(model: Slimmable, permuted: Mapping[str, Tensor], final: str, features: Tensor) -> None:
    own = model.state_dict()
    for name, tensor in permuted.items():
        if name.startswith(f'{type(model).classifier_name}.'):
            continue
        own[name].copy_(_stored(model, name, tensor))
    if final:
        layer: Any = model.get_submodule('neck.proj' if model.embed_dim else 'fc')
        name = 'neck.proj.weight' if model.embed_dim else 'fc.weight'
        with model.at_width(1.0):
            whole = layer.weight.index_select(1, features)
        own[name].copy_(_stored(model, name, whole))
    model.refresh()
