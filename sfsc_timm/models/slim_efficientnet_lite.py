"""Slimmable EfficientNet-Lites: no squeeze-excite, ReLU6; made for quantised inference on small devices.

EfficientNet-Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, as timm builds it
under the names `tf_efficientnet_lite*`, whose ImageNet weights are the warm start.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from .._private import gen_efficientnet_lite
from ._factory import create_slimmable, warm_start
from ._final_conv import narrow_final_conv
from ._shipped import with_shipped
from ._widths import scale_channels
from .slim_efficientnet import SlimmableEfficientNet

__all__ = ['SlimmableEfficientNetLite']


class SlimmableEfficientNetLite(SlimmableEfficientNet):
    """EfficientNet-Lite at several widths: blocks and final convolution slim, the stem has 32 channels at each."""

    @staticmethod
    def dense(width: float, channel_multiplier: float = 1.0, **kwargs: Any) -> nn.Module:
        """Timm's EfficientNet-Lite with `width` times its channels.

        timm keeps stem and final convolution as they are whatever the multiplier. For the stem, which costs next to
        nothing, that is kept; the final convolution would be a third of the parameters of width 0.25, so it slims.
        """
        multiplier = channel_multiplier * width
        model: Any = gen_efficientnet_lite('tf_efficientnet_lite0', channel_multiplier=multiplier, **kwargs)
        if width < 1.0:
            channels = scale_channels(model.num_features, width)
            narrow_final_conv(model, 'bn2', channels)
            model.num_features = channels
            model.head_hidden_size = channels * model.global_pool.feat_mult()
        narrow: nn.Module = model
        return narrow


default_cfgs = generate_default_cfgs(
    with_shipped(
        {
            f'sfsc_efficientnet_lite{size}.in1k': warm_start(f'tf_efficientnet_lite{size}.in1k', classifier='fc')
            for size in (0, 1, 2)
        }
    )
)


def _efficientnet_lite(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    # TensorFlow's epsilon and padding: what timm's tf_ models set.
    args = {'bn_eps': 1e-3, 'pad_type': 'same', **kwargs}
    return create_slimmable(SlimmableEfficientNetLite, variant, pretrained, {'feature_cls': 'getter'}, **args)


@register_model
def sfsc_efficientnet_lite0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-Lite0."""
    return _efficientnet_lite('sfsc_efficientnet_lite0', pretrained, **kwargs)


@register_model
def sfsc_efficientnet_lite1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-Lite1."""
    return _efficientnet_lite('sfsc_efficientnet_lite1', pretrained, **{'depth_multiplier': 1.1, **kwargs})


@register_model
def sfsc_efficientnet_lite2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable EfficientNet-Lite2."""
    args = {'channel_multiplier': 1.1, 'depth_multiplier': 1.2}
    return _efficientnet_lite('sfsc_efficientnet_lite2', pretrained, **{**args, **kwargs})
