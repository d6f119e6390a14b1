"""All widths start from a network that was trained as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..slim import densify
from ._factory import _stored

if TYPE_CHECKING:
    from ._slimmable import Slimmable

__all__ = ['start_from']


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
    state = {name: _stored(model, name, tensor) for name, tensor in densify(whole).state_dict().items()}
    own = model.state_dict()
    if different := sorted(
        k for k in own.keys() | state.keys() if k not in own or k not in state or own[k].shape != state[k].shape
    ):
        raise ValueError(
            f'whole must be of the same architecture and classes as the model, got other tensors: {different[:3]}'
        )
    model.load_state_dict(state)
    model.refresh()
