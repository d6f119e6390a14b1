"""All widths start from a network that was trained as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..slim import densify
from ._factory import _stored
from ._heads import fold_neck

if TYPE_CHECKING:
    from ._slimmable import Slimmable

__all__ = ['start_from', 'start_from_folded']


@torch.no_grad()
def start_from(model: Slimmable, whole: Slimmable) -> None:
    """Gives a slimmable model the weights of a finished network of full width, which its width 1.0 then equals.

    Narrower widths are slices of it, and their norms start as the leading slices of the full width's; call
    `sort_channels` next, so that the slices hold what matters.

    Args:
        model: Changed in place; its width stays.
        whole: A network as wide, as of `create_model(..., widths=(1.0,))`; of one with several widths, the active one
            counts. It stays.

    Raises:
        ValueError: It is of another architecture or width, or has another classifier.
    """
    _load(model, densify(whole).state_dict())


@torch.no_grad()
def start_from_folded(model: Slimmable, whole: Slimmable, neck: nn.Linear | None = None) -> None:
    """As `start_from`, for a model whose neck has no norm: that of `whole` is folded into one layer, or replaced.

    Args:
        model: Changed in place; its width stays, and so does its classifier.
        whole: As for `start_from`; its neck may end in a norm.
        neck: Layer from pooled features to the embedding that takes the neck's place; None for the folded one.

    Raises:
        ValueError: It is of another architecture or width, or the model's neck has a norm.
    """
    layer = fold_neck(densify(whole.neck)) if neck is None else neck
    backbone = {k: t for k, t in densify(whole).state_dict().items() if not k.startswith(('neck.', 'fc.'))}
    classifier = {f'fc.{k}': t for k, t in densify(model.fc).state_dict().items()}
    _load(model, {**backbone, 'neck.proj.weight': layer.weight, 'neck.proj.bias': layer.bias, **classifier})


def _load(model: Slimmable, dense: Mapping[str, Tensor]) -> None:
    state = {name: _stored(model, name, tensor) for name, tensor in dense.items()}
    own = model.state_dict()
    if different := sorted(
        k for k in own.keys() | state.keys() if k not in own or k not in state or own[k].shape != state[k].shape
    ):
        raise ValueError(
            f'whole must be of the same architecture and classes as the model, got other tensors: {different[:3]}'
        )
    model.load_state_dict(state)
    model.refresh()
