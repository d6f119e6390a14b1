"""Final convolutions that timm's builders keep as wide as they are, whatever the channel multiplier."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from timm.models.efficientnet import efficientnet_init_weights
from torch import Tensor, nn

__all__ = ['narrow_final_conv']


def narrow_final_conv(model: Any, norm: str, channels: int) -> None:
    """Gives a fresh model of timm's EfficientNet family a narrow final convolution, for which it has no argument.

    Args:
        model: The model, changed in place; its numbers of features are left to the caller.
        norm: Name of the norm behind the convolution, which may be an identity.
        channels: Of the convolution and its norm.
    """
    head = model.conv_head
    like = {'bias': head.bias is not None, 'device': head.weight.device, 'dtype': head.weight.dtype}
    model.conv_head = nn.Conv2d(head.in_channels, channels, 1, **like)
    setattr(model, norm, _narrow_norm(getattr(model, norm), channels))
    efficientnet_init_weights(model)


def _narrow_norm(norm: nn.Module, channels: int) -> nn.Module:
    narrow: Any = deepcopy(norm)
    for tensors in (narrow._parameters, narrow._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and tensor.ndim:
                cut: Tensor = tensor.detach()[:channels].clone()
                tensors[name] = nn.Parameter(cut) if name in narrow._parameters else cut
    if hasattr(narrow, 'num_features'):
        narrow.num_features = channels
    narrowed: nn.Module = narrow
    return narrowed
