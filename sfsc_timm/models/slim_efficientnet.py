"""Slimmable EfficientNets: depthwise convolutions and squeeze-excite.

EfficientNet: https://arxiv.org/abs/1905.11946, as timm builds it. Its channel multiplier is the width.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.efficientnet import EfficientNet
from torch import nn

from .._private import gen_efficientnet
from ._factory import create_slimmable, zoo_cfgs
from ._narrow import plain_if_whole
from ._slimmable import Slimmable

__all__ = ['SlimmableEfficientNet']


class SlimmableEfficientNet(Slimmable, EfficientNet):
    """EfficientNet at several widths: stem, blocks, squeeze-excite and the final convolution slim."""

    classifier_name = 'classifier'
    block_pattern = r'blocks\.\d+\.\d+'

    @staticmethod
    def dense(width: float, channel_multiplier: float = 1.0, **kwargs: Any) -> nn.Module:
        """Timm's EfficientNet with `width` times its channels."""
        model: nn.Module = gen_efficientnet('efficientnet_b0', channel_multiplier=channel_multiplier * width, **kwargs)
        return model

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Plain timm fixes the channel multiplier by the model's name, see `plain_if_whole`."""
        return plain_if_whole('an EfficientNet', width, kwargs)


default_cfgs = zoo_cfgs(
    'efficientnet_b0.ra_in1k',
    'efficientnet_b1.ft_in1k',
    'efficientnet_b2.ra_in1k',
)


def _efficientnet(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    # forward_intermediates follows the width; timm's own EfficientNetFeatures is another class without it.
    return create_slimmable(SlimmableEfficientNet, variant, pretrained, {'feature_cls': 'getter'}, **kwargs)


@register_model
def sfsc_efficientnet_b0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-B0."""
    return _efficientnet('sfsc_efficientnet_b0', pretrained, **kwargs)


@register_model
def sfsc_efficientnet_b1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-B1."""
    return _efficientnet('sfsc_efficientnet_b1', pretrained, **{'depth_multiplier': 1.1, **kwargs})


@register_model
def sfsc_efficientnet_b2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-B2."""
    args = {'channel_multiplier': 1.1, 'depth_multiplier': 1.2}
    return _efficientnet('sfsc_efficientnet_b2', pretrained, **{**args, **kwargs})
