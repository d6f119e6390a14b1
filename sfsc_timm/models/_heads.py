"""What stands on the backbone: the neck into the common metric space and the classifier that all widths share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    'CosineLinear',
    'classify_fixed',
    'classify_leading',
    'create_neck',
    'cut_classifier',
    'cut_outputs',
    'fold_neck',
]


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
    """Logits (B, C) of embeddings by a linear or cosine classifier that is not trained by them.

    Args:
        classifier: Of embeddings (B, D).
        embedding: (B, d); where d < D, its leading d columns classify.

    Raises:
        ValueError: If it is another kind of classifier.
    """
    return _classify(classifier, embedding, fixed=True)


def classify_leading(classifier: nn.Module, embedding: Tensor) -> Tensor:
    """Logits (B, C) of embeddings (B, d) by the leading d columns of a linear or cosine classifier, which they train.

    Raises:
        ValueError: If it is another kind of classifier.
    """
    return _classify(classifier, embedding, fixed=False)


def _classify(classifier: nn.Module, embedding: Tensor, *, fixed: bool) -> Tensor:
    if not isinstance(classifier, CosineLinear | nn.Linear):
        raise ValueError(f'classifier must be a Linear or a CosineLinear, got {type(classifier).__name__}')
    weight = classifier.weight.detach() if fixed else classifier.weight
    weight = weight[:, : embedding.shape[-1]]
    if isinstance(classifier, CosineLinear):
        return classifier.scale * F.linear(F.normalize(embedding, dim=-1), F.normalize(weight, dim=-1))
    bias: Tensor | None = classifier.bias
    return F.linear(embedding, weight, bias.detach() if fixed and bias is not None else bias)


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


def fold_neck(neck: nn.Module, dim: int | None = None) -> nn.Linear:
    """One linear layer that equals a dense `neck` in evaluation, folded in float64.

    Args:
        neck: Of `create_neck`.
        dim: How many of its outputs, the first ones (None: all).
    """
    proj: Any = neck.get_submodule('proj')
    weight = proj.weight.detach().double()
    bias = torch.zeros_like(weight[:, 0]) if proj.bias is None else proj.bias.detach().double()
    bn: Any = getattr(neck, 'bn', None)
    if bn is not None:
        scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
        weight = weight * scale[:, None]
        bias = (bias - bn.running_mean.double()) * scale + bn.bias.detach().double()
    weight, bias = weight[:dim], bias[:dim]
    folded = nn.Linear(proj.in_features, len(weight), device=proj.weight.device, dtype=proj.weight.dtype)
    with torch.no_grad():
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
    return folded.train(neck.training)


def cut_outputs(layer: Any, dim: int) -> nn.Linear:
    """A linear layer with the first `dim` outputs of another; its tensors are its own."""
    return _copied(nn.Linear(layer.in_features, dim, layer.bias is not None, device='meta'), layer)


def cut_classifier(classifier: Any, dim: int) -> nn.Module:
    """A linear or cosine classifier of embeddings (B, dim), the leading columns of another; its tensors are its own."""
    if isinstance(classifier, CosineLinear):
        return _copied(CosineLinear(dim, classifier.out_features, classifier.scale, device='meta'), classifier)
    return _copied(nn.Linear(dim, classifier.out_features, classifier.bias is not None, device='meta'), classifier)


def _copied(small: Any, large: nn.Module) -> Any:
    """Gives a layer on the meta device the leading corner of each parameter of a larger one."""
    for name, parameter in large.named_parameters():
        corner = parameter.detach()[tuple(slice(0, n) for n in getattr(small, name).shape)]
        setattr(small, name, nn.Parameter(corner.clone(memory_format=torch.contiguous_format)))
    return small.train(large.training)
