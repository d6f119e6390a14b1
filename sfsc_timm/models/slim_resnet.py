"""Slimmable ResNets.

ResNet: https://arxiv.org/abs/1512.03385, the `d` stems: https://arxiv.org/abs/1812.01187, both as timm builds them.
Slimmable networks with per-width normalisation: Yu et al., ICLR 2019, https://arxiv.org/abs/1812.08928.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from ._factory import create_slimmable, zoo_cfgs
from ._slimmable import Slimmable
from ._widths import scale_channels

__all__ = ['SlimmableResNet']


class SlimmableResNet(Slimmable, ResNet):
    """ResNet at several widths: every stage, the stem and the bottlenecks slim."""

    classifier_name = 'fc'
    block_pattern = r'layer\d+\.\d+'

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        """Timm's ResNet at `width`."""
        narrow = {**kwargs, **_narrow_args(width, kwargs)}
        if width == 1.0 or 'deep' in kwargs.get('stem_type', ''):
            return ResNet(**narrow)
        # The plain stem is 64 wide in timm whatever the arguments, and shortcuts depend on it. A deep stem ends in
        # 2 x stem_width channels, so the rest of the network is built behind one, and the stem itself is replaced.
        channels = scale_channels(64, width)
        model = ResNet(**{**narrow, 'stem_type': 'deep', 'stem_width': channels // 2})
        device, dtype = kwargs.get('device'), kwargs.get('dtype')
        model.conv1 = nn.Conv2d(model.in_chans, channels, 7, 2, 3, bias=False, device=device, dtype=dtype)
        return model

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by which plain timm makes the sub-model."""
        args = {**kwargs, **_narrow_args(width, kwargs)}
        args.pop('block', None)  # the name implies it, and a class cannot be written to a config
        if 'deep' not in kwargs.get('stem_type', ''):
            # Behind its 64 stem channels plain timm leaves out layer1's shortcut convolution if that has 64 outputs,
            # too. The full model has one: one more channel (17 x 4 = 68 outputs) brings it back.
            first, *others = args['channels']
            if width != 1.0 and first * kwargs['block'].expansion == 64 and kwargs['block'].expansion > 1:
                args['channels'] = (first + 1, *others)
        return args

    @staticmethod
    def adapt_to_plain(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the shortcut convolution of layer1 where plain timm has one and the sub-model none: the identity."""
        key = 'layer1.0.downsample'
        if f'{key}.0.weight' in state or f'{key}.0.weight' not in wanted:
            return state
        identity = torch.zeros_like(wanted[f'{key}.0.weight'])
        identity[:, :, 0, 0].fill_diagonal_(1.0)
        norm = {n: torch.clone(wanted[f'{key}.1.{n}']) for n in ('weight', 'bias', 'running_mean', 'running_var')}
        norm['weight'].fill_(1.0)
        norm['running_var'].fill_(1.0 - 1e-5)  # BatchNorm2d's eps, so that it divides by 1
        counter = {'num_batches_tracked': wanted[f'{key}.1.num_batches_tracked']}
        return {**state, f'{key}.0.weight': identity, **{f'{key}.1.{n}': t for n, t in {**norm, **counter}.items()}}


def _narrow_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
    channels = tuple(scale_channels(c, width) for c in kwargs.get('channels', (64, 128, 256, 512)))
    if 'deep' not in kwargs.get('stem_type', ''):
        return {'channels': channels}
    # Rounded as the 2 x stem_width channels it ends in, which have to match the first stage's where they do at width 1.
    return {'channels': channels, 'stem_width': scale_channels(2 * kwargs.get('stem_width', 64), width) // 2}


default_cfgs = zoo_cfgs(
    'resnet18.a1_in1k',
    'resnet34.a1_in1k',
    'resnet50.a1_in1k',
    'resnet101.a1_in1k',
    'resnet18d.ra2_in1k',
    'resnet34d.ra2_in1k',
    'resnet50d.a1_in1k',
    'resnet101d.ra2_in1k',
)

_D_STEM = {'stem_width': 32, 'stem_type': 'deep', 'avg_down': True}


def _resnet(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    return create_slimmable(SlimmableResNet, variant, pretrained, **kwargs)


@register_model
def sfsc_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-18."""
    args = {'block': BasicBlock, 'layers': (2, 2, 2, 2)}
    return _resnet('sfsc_resnet18', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet34(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-34."""
    args = {'block': BasicBlock, 'layers': (3, 4, 6, 3)}
    return _resnet('sfsc_resnet34', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-50."""
    args = {'block': Bottleneck, 'layers': (3, 4, 6, 3)}
    return _resnet('sfsc_resnet50', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet101(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-101."""
    args = {'block': Bottleneck, 'layers': (3, 4, 23, 3)}
    return _resnet('sfsc_resnet101', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet18d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-18-D."""
    args = {'block': BasicBlock, 'layers': (2, 2, 2, 2), **_D_STEM}
    return _resnet('sfsc_resnet18d', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet34d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-34-D."""
    args = {'block': BasicBlock, 'layers': (3, 4, 6, 3), **_D_STEM}
    return _resnet('sfsc_resnet34d', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet50d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-50-D."""
    args = {'block': Bottleneck, 'layers': (3, 4, 6, 3), **_D_STEM}
    return _resnet('sfsc_resnet50d', pretrained, **{**args, **kwargs})


@register_model
def sfsc_resnet101d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ResNet-101-D."""
    args = {'block': Bottleneck, 'layers': (3, 4, 23, 3), **_D_STEM}
    return _resnet('sfsc_resnet101d', pretrained, **{**args, **kwargs})
