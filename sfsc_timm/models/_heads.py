"""What stands on the backbone: the neck into the common metric space and the classifier that all widths share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ['CosineLinear', 'classify_fixed', 'create_neck', 'fold_neck']


class CosineLinear(nn.Module):
    """Classifier whose logits are scaled cosines between embedding and class weight.

    Args:
        in_features: Size D of the embedding.
        out_features: Number C of classes.
        scale: Factor on the cosines, > 0 (the inverse temperature).

    Raises:
        ValueError: If `scale` is not positive.
    """

    def __init__(
        self, in_features: int, out_features: int, scale: float = 16.0, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f'scale must be positive, got {scale}; 16 is a common choice')
        self.in_features = in_features
        self.out_features = out_features
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (B, D) to logits (B, C) in [-scale, scale]."""
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f'in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}'


def classify_fixed(classifier: nn.Module, embedding: Tensor) -> Tensor:
    """Logits (B, C) of embeddings (B, D) by a linear or cosine classifier that is not trained by them.

    Raises:
        ValueError: If it is another kind of classifier.
    """
    if isinstance(classifier, CosineLinear):
        weight = F.normalize(classifier.weight.detach(), dim=-1)
        return classifier.scale * F.linear(F.normalize(embedding, dim=-1), weight)
    if isinstance(classifier, nn.Linear):
        return F.linear(
            embedding,
            classifier.weight.detach(),
            classifier.bias if classifier.bias is None else classifier.bias.detach(),
        )
    raise ValueError(f'classifier must be a Linear or a CosineLinear, got {type(classifier).__name__}')


def create_neck(in_features: int, embed_dim: int, norm: bool, device: Any = None, dtype: Any = None) -> nn.Module:
    """Affine map (in evaluation) of pooled features (B, in_features) to the embedding (B, embed_dim).

    Args:
        in_features: Pooled features of one width.
        embed_dim: Size of the common embedding.
        norm: Whether a BatchNorm1d follows the linear layer, which then needs no bias.
        device: Where to put it.
        dtype: Type of its parameters.
    """
    proj = nn.Linear(in_features, embed_dim, bias=not norm, device=device, dtype=dtype)
    if not norm:
        return nn.Sequential(OrderedDict(proj=proj))
    return nn.Sequential(OrderedDict(proj=proj, bn=nn.BatchNorm1d(embed_dim, device=device, dtype=dtype)))


def fold_neck(neck: nn.Module) -> nn.Linear:
    """One linear layer that equals a dense `neck` in evaluation, folded in float64."""
    proj: Any = neck.get_submodule('proj')
    weight = proj.weight.detach().double()
    bias = torch.zeros_like(weight[:, 0]) if proj.bias is None else proj.bias.detach().double()
    bn: Any = getattr(neck, 'bn', None)
    if bn is not None:
        scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
        weight = weight * scale[:, None]
        bias = (bias - bn.running_mean.double()) * scale + bn.bias.detach().double()
    folded = nn.Linear(proj.in_features, proj.out_features, device=proj.weight.device, dtype=proj.weight.dtype)
    with torch.no_grad():
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
    return folded.train(neck.training)
