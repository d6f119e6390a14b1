"""Slimmable vision transformers of DINOv3: rotary position embedding, registers, layer scale.

DINOv3: https://arxiv.org/abs/2508.10104, as timm builds it, in its class Eva. For warm starts alone: no weights of it
ship with this package. They are Meta's, under the DINOv3 License
(https://ai.meta.com/resources/models-and-libraries/dinov3-license/), which asks for its terms to go along with what is
trained from them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import LayerNorm
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as timms_filter
from torch import Tensor, nn

from ._factory import create_slimmable, zoo_cfgs
from ._transformer import SlimmableTransformer

__all__ = ['SlimmableEva']


class SlimmableEva(SlimmableTransformer, Eva):
    """DINOv3's ViT at several widths, which have fewer heads; the rotation within a head is the same at each."""

    norm_argument = 'use_fc_norm'

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        """Timm's Eva with `width` times its heads."""
        return Eva(**SlimmableTransformer.sizes(width, kwargs))

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by which plain timm makes the sub-model."""
        args = SlimmableTransformer.sizes(width, kwargs)
        args.pop('norm_layer', None)  # the name implies it, and a class cannot be written to a config
        return args

    @staticmethod
    def as_timm_loads(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Timm's own conversion: DINOv3's names, and patches of another size."""
        converted: dict[str, Tensor] = timms_filter(state, model)
        return converted


default_cfgs = zoo_cfgs('vit_small_patch16_dinov3.lvd1689m', 'vit_base_patch16_dinov3.lvd1689m')

_DINOV3 = {
    'patch_size': 16,
    'dynamic_img_size': True,
    'depth': 12,
    'qkv_bias': False,
    'init_values': 1e-5,
    'rope_type': 'dinov3',
    'rope_temperature': 100,
    'rope_rotate_half': True,
    'use_rot_pos_emb': True,
    'use_abs_pos_emb': False,
    'num_reg_tokens': 4,
    'use_fc_norm': False,
    'norm_layer': partial(LayerNorm, eps=1e-5),
}


def _eva(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    feature_cfg = {'out_indices': 3, 'feature_cls': 'getter'}
    return create_slimmable(SlimmableEva, variant, pretrained, feature_cfg, **kwargs)


@register_model
def sfsc_vit_small_patch16_dinov3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-S/16 of DINOv3, of 6 heads; global_pool='token' pools as DINOv3 does, 'avg' as timm does."""
    return _eva('sfsc_vit_small_patch16_dinov3', pretrained, **{**_DINOV3, 'num_heads': 6, **kwargs})


@register_model
def sfsc_vit_base_patch16_dinov3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Slimmable ViT-B/16 of DINOv3, of 12 heads; global_pool='token' pools as DINOv3 does, 'avg' as timm does."""
    return _eva('sfsc_vit_base_patch16_dinov3', pretrained, **{**_DINOV3, 'num_heads': 12, **kwargs})
