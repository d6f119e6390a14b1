"""Slimmable MobileNets: the usual backbones of phones.

MobileNetV3: https://arxiv.org/abs/1905.02244, MobileNetV4: https://arxiv.org/abs/2404.10518, both as timm builds them:
pooled first, with the final convolution behind the pooling. timm's channel multiplier is the width.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from .._private import gen_mobilenet_v3, gen_mobilenet_v4
from ._factory import create_slimmable, zoo_cfgs
from ._final_conv import narrow_final_conv
from ._narrow import plain_if_whole
from ._slimmable import Slimmable
from ._widths import scale_channels

__all__ = ['SlimmableMobileNet']


class SlimmableMobileNet(Slimmable, MobileNetV3):
    """MobileNetV3 or V4 at several widths: blocks, squeeze-excite and final convolution slim, the stem stays."""

    classifier_name = 'classifier'
    block_pattern = r'blocks\.\d+\.\d+'

    @staticmethod
    def dense(
        width: float, timm_name: str = 'mobilenetv3_large_100', channel_multiplier: float = 1.0, **kwargs: Any
    ) -> nn.Module:
        """Timm's MobileNet with `width` times its channels.

        timm keeps the stem as it is, which costs next to nothing, and the final convolution, which would be most of the
        parameters of width 0.25; so that one slims.
        """
        build = gen_mobilenet_v4 if timm_name.startswith('mobilenetv4') else gen_mobilenet_v3
        model = build(timm_name, channel_multiplier=channel_multiplier * width, **kwargs)
        if width < 1.0:
            channels = scale_channels(model.head_hidden_size, width)
            narrow_final_conv(model, 'norm_head', channels)
            model.head_hidden_size = channels
        narrow: nn.Module = model
        return narrow

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Plain timm fixes the channel multiplier by the model's name, see `plain_if_whole`."""
        return plain_if_whole('a MobileNet', width, kwargs)


default_cfgs = zoo_cfgs(
    'mobilenetv3_large_100.ra4_e3600_r224_in1k',
    'mobilenetv3_large_100.miil_in21k_ft_in1k',
    'mobilenetv3_large_100.ra_in1k',
    'mobilenetv3_small_100.lamb_in1k',
    'mobilenetv4_conv_small.e3600_r256_in1k',
    'mobilenetv4_conv_small.e2400_r224_in1k',
    'mobilenetv4_conv_medium.e500_r256_in1k',
    'mobilenetv4_conv_medium.e500_r224_in1k',
    'mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k',
)


def _mobilenet(timm_name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    # forward_intermediates follows the width; timm's own MobileNetV3Features is another class without it.
    features = {'feature_cls': 'getter'}
    return create_slimmable(
        SlimmableMobileNet, f'sfsc_{timm_name}', pretrained, features, **{'timm_name': timm_name, **kwargs}
    )


@register_model
def sfsc_mobilenetv3_small_100(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable MobileNetV3-Small."""
    return _mobilenet('mobilenetv3_small_100', pretrained, **kwargs)


@register_model
def sfsc_mobilenetv3_large_100(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable MobileNetV3-Large."""
    return _mobilenet('mobilenetv3_large_100', pretrained, **kwargs)


@register_model
def sfsc_mobilenetv4_conv_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable MobileNetV4-Conv-Small."""
    return _mobilenet('mobilenetv4_conv_small', pretrained, **kwargs)


@register_model
def sfsc_mobilenetv4_conv_medium(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable MobileNetV4-Conv-Medium."""
    return _mobilenet('mobilenetv4_conv_medium', pretrained, **kwargs)
