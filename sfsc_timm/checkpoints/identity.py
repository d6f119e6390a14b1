"""Which metric space a model embeds into."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from ..models import Slimmable

__all__ = ['compatibility_id']


def compatibility_id(model: nn.Module) -> str:
    """Identifies the metric space of a checkpoint by its weights.

    All widths of a slimmable model share its weights, and so the id. The classifier is left out, since embeddings do
    not depend on it: replacing or dropping it keeps the id. Anything else that training changes makes a new one, and
    so does another precision.

    Args:
        model: A slimmable model, at any width, or a model whose output is the embedding.

    Returns:
        The first 32 hexadecimal digits of a SHA-256 over the tensors' names, types, shapes and bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        # Batches seen by a normalisation do not enter its output.
        if (isinstance(model, Slimmable) and name.startswith('fc.')) or name.endswith('.num_batches_tracked'):
            continue
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
