"""Which metric space a model embeds into, and by which weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..models import Slimmable
from ..slim import densify

__all__ = ['compatibility_id', 'space_id', 'state_digest', 'weights_digest']


def space_id(model: nn.Module) -> str:
    """Identifies the metric space of a checkpoint by its reference φ, the full width.

    Every width was trained to agree with φ, so the id stays when another width is fitted again or added; anything that
    changes φ's weights makes a new one, and so does another precision. The classifier is left out.

    Args:
        model: A slimmable model, at any width, or a model whose output is the embedding (which then is φ).

    Returns:
        32 hexadecimal digits.
    """
    # Not the digest itself: the two are compared with different things.
    return hashlib.sha256(f'space of {weights_digest(model)}'.encode()).hexdigest()[:32]


def weights_digest(model: nn.Module, width: float | None = None) -> str:
    """Identifies the weights that embed at one width, whatever the other widths are.

    Args:
        model: A slimmable model, at any width, or a model whose output is the embedding.
        width: Which width of a slimmable model; None takes the full one.

    Returns:
        32 hexadecimal digits.

    Raises:
        ValueError: There is no such width.
    """
    if not isinstance(model, Slimmable):
        return state_digest(model.state_dict())
    with model.at_width(1.0 if width is None else width):
        return state_digest(_without_classifier(densify(model).state_dict()))


def compatibility_id(model: nn.Module) -> str:
    """Identifies a checkpoint by the weights of all its widths.

    The classifier is left out, since embeddings do not depend on it: replacing or dropping it keeps the id. Anything
    else that training changes makes a new one, and so does another precision. It is what measurements belong to; and
    what told metric spaces apart before there was `space_id`.

    Args:
        model: A slimmable model, at any width, or a model whose output is the embedding.

    Returns:
        The first 32 hexadecimal digits of a SHA-256 over the tensors' names, types, shapes and bytes.
    """
    state = model.state_dict()
    return state_digest(_without_classifier(state) if isinstance(model, Slimmable) else state)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """The first 32 hexadecimal digits of a SHA-256 over the tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        # Batches seen by a normalisation do not enter its output.
        if name.endswith('.num_batches_tracked'):
            continue
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith('fc.')}
