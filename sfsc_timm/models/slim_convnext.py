"""Slimmable ConvNeXts: LayerNorm and layer scale.

ConvNeXt: https://arxiv.org/abs/2201.03545, as timm builds it. The tags `dinov3_lvd1689m` are Meta's weights of DINOv3
(https://arxiv.org/abs/2508.10104), under the DINOv3 License; none ship with this package.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.convnext import ConvNeXt
from timm.models.convnext import checkpoint_filter_fn as timms_filter
from torch import Tensor, nn

from ._factory import create_slimmable, zoo_cfgs
from ._slimmable import Slimmable
from ._widths import scale_channels

__all__ = ['SlimmableConvNeXt']


class SlimmableConvNeXt(Slimmable, ConvNeXt):
    """ConvNeXt at several widths; its neck has no batch statistics either, so none are in the model."""

    classifier_name = 'head.fc'
    block_pattern = r'stages\.\d+\.blocks\.\d+'
    neck_norm = False

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        """Timm's ConvNeXt at `width`."""
        return ConvNeXt(**{**kwargs, **_narrow_args(width, kwargs)})

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by which plain timm makes the sub-model."""
        return {**kwargs, **_narrow_args(width, kwargs)}

    @staticmethod
    def as_timm_loads(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Timm's own conversion, of Meta's names."""
        converted: dict[str, Tensor] = timms_filter(state, model)
        return converted


def _narrow_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
    args: dict[str, Any] = {}
    args['dims'] = tuple(scale_channels(c, width) for c in kwargs.get('dims', (96, 192, 384, 768)))
    if kwargs.get('head_hidden_size'):
        args['head_hidden_size'] = scale_channels(kwargs['head_hidden_size'], width)
    return args


default_cfgs = zoo_cfgs(
    'convnext_atto.d2_in1k',
    'convnext_femto.d1_in1k',
    'convnext_pico.d1_in1k',
    'convnext_nano.d1h_in1k',
    'convnext_nano.in12k_ft_in1k',
    'convnext_tiny.fb_in1k',
    'convnext_tiny.in12k_ft_in1k',
    'convnext_tiny.dinov3_lvd1689m',
    'convnext_small.fb_in1k',
    'convnext_small.in12k_ft_in1k',
    'convnext_small.dinov3_lvd1689m',
)


def _convnext(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    feature_cfg = {'out_indices': (0, 1, 2, 3), 'flatten_sequential': True}
    return create_slimmable(SlimmableConvNeXt, variant, pretrained, feature_cfg, **kwargs)


@register_model
def sfsc_convnext_atto(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Atto."""
    args = {'depths': (2, 2, 6, 2), 'dims': (40, 80, 160, 320), 'conv_mlp': True}
    return _convnext('sfsc_convnext_atto', pretrained, **{**args, **kwargs})


@register_model
def sfsc_convnext_femto(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Femto."""
    args = {'depths': (2, 2, 6, 2), 'dims': (48, 96, 192, 384), 'conv_mlp': True}
    return _convnext('sfsc_convnext_femto', pretrained, **{**args, **kwargs})


@register_model
def sfsc_convnext_pico(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Pico."""
    args = {'depths': (2, 2, 6, 2), 'dims': (64, 128, 256, 512), 'conv_mlp': True}
    return _convnext('sfsc_convnext_pico', pretrained, **{**args, **kwargs})


@register_model
def sfsc_convnext_nano(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Nano."""
    args = {'depths': (2, 2, 8, 2), 'dims': (80, 160, 320, 640), 'conv_mlp': True}
    return _convnext('sfsc_convnext_nano', pretrained, **{**args, **kwargs})


@register_model
def sfsc_convnext_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Tiny."""
    args = {'depths': (3, 3, 9, 3), 'dims': (96, 192, 384, 768)}
    return _convnext('sfsc_convnext_tiny', pretrained, **{**args, **kwargs})


@register_model
def sfsc_convnext_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ConvNeXt-Small."""
    args = {'depths': (3, 3, 27, 3), 'dims': (96, 192, 384, 768)}
    return _convnext('sfsc_convnext_small', pretrained, **{**args, **kwargs})
