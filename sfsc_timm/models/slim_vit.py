"""Slimmable vision transformers, DINOv2's among them.

ViT: https://arxiv.org/abs/2010.11929 with the weights of https://arxiv.org/abs/2106.10270, DINOv2:
https://arxiv.org/abs/2304.07193, both as timm builds them.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as timms_filter
from torch import Tensor, nn

from ._factory import create_slimmable, zoo_cfgs
from ._transformer import SlimmableTransformer

__all__ = ['SlimmableViT']


class SlimmableViT(SlimmableTransformer, VisionTransformer):
    """ViT at several widths, which have fewer heads; tokens, position embedding and layer scale slim along."""

    norm_argument = 'fc_norm'

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        """Timm's ViT with `width` times its heads."""
        return VisionTransformer(**SlimmableTransformer.sizes(width, kwargs))

    @staticmethod
    def as_timm_loads(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Timm's own conversion: DINOv2's names, and position embeddings and patches of another size."""
        converted: dict[str, Tensor] = timms_filter(state, model)
        return converted


default_cfgs = zoo_cfgs(
    'vit_tiny_patch16_224.augreg_in21k_ft_in1k',
    'vit_tiny_patch16_224.augreg_in21k',
    'vit_small_patch16_224.augreg_in21k_ft_in1k',
    'vit_small_patch16_224.augreg_in21k',
    'vit_small_patch16_224.dino',
    'vit_base_patch16_224.augreg2_in21k_ft_in1k',
    'vit_base_patch16_224.augreg_in21k',
    'vit_base_patch16_224.dino',
    'vit_small_patch14_dinov2.lvd142m',
    'vit_base_patch14_dinov2.lvd142m',
)


def _vit(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    feature_cfg = {'out_indices': 3, 'feature_cls': 'getter'}
    return create_slimmable(SlimmableViT, variant, pretrained, feature_cfg, **kwargs)


@register_model
def sfsc_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-Ti/16 of 3 heads."""
    args = {'patch_size': 16, 'depth': 12, 'num_heads': 3}
    return _vit('sfsc_vit_tiny_patch16_224', pretrained, **{**args, **kwargs})


@register_model
def sfsc_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-S/16 of 6 heads."""
    args = {'patch_size': 16, 'depth': 12, 'num_heads': 6}
    return _vit('sfsc_vit_small_patch16_224', pretrained, **{**args, **kwargs})


@register_model
def sfsc_vit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-B/16 of 12 heads."""
    args = {'patch_size': 16, 'depth': 12, 'num_heads': 12}
    return _vit('sfsc_vit_base_patch16_224', pretrained, **{**args, **kwargs})


@register_model
def sfsc_vit_small_patch14_dinov2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-S/14 of DINOv2, of 518 pixels unless `img_size` says otherwise."""
    args = {'patch_size': 14, 'depth': 12, 'num_heads': 6, 'init_values': 1e-5}
    return _vit('sfsc_vit_small_patch14_dinov2', pretrained, **{**args, **kwargs})


@register_model
def sfsc_vit_base_patch14_dinov2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-B/14 of DINOv2, of 518 pixels unless `img_size` says otherwise."""
    args = {'patch_size': 14, 'depth': 12, 'num_heads': 12, 'init_values': 1e-5}
    return _vit('sfsc_vit_base_patch14_dinov2', pretrained, **{**args, **kwargs})
