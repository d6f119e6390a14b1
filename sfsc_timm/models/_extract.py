"""One width as a dense model: our own exact slice, or the form that plain timm can load."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from inspect import signature
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..slim import densify
from ._heads import cut_classifier, fold_neck
from ._sizes import check_size

__all__ = ['extract', 'scriptable']

# Attributes of a slimmable model that timm's does not have.
_OWN = (
    'embed_dim',
    'embed_dims',
    '_family_args',
    '_full_width',
    '_pooled_sizes',
    '_classifier',
    '_neck_norm',
    '_own_necks',
    'fresh_parts',
    '_slim',
    '_alone',
)


def extract(
    model: Any, width: float | None = None, head: bool = False, plain: bool = False, dim: int | None = None
) -> nn.Module:
    """Dense model of one width, independent of `model`, in evaluation mode: the way to several widths in threads.

    It is an instance of timm's own class with the neck folded into a linear layer that takes the classifier's place, so
    its output is the embedding (B, embed_dim), or the logits (B, num_classes) with `head`.

    Args:
        model: The slimmable model, a `Slimmable`.
        width: Which width (None: the active one).
        head: Give logits instead of embeddings: the neck is followed by the classifier.
        plain: Give a model that `timm.create_model` makes without this package: `model.pretrained_cfg` names the
            architecture and `model._model_args` its arguments. Where plain timm is not free to be as narrow (the stem
            of the plain ResNets is 64 wide), tensors are padded with zeros; the output is the same.
        dim: One of the model's `embed_dims`: give the first `dim` numbers alone, by a neck as small (None: all).

    Raises:
        ValueError: If the width or size is unknown, there is nothing to give (no classifier for `head`, no pooling), or
            plain timm cannot express this family at this width.
    """
    if head and not model.num_classes:
        raise ValueError('head=True needs a classifier, got a model with num_classes=0; leave head out')
    if plain and head:
        raise ValueError('plain=True gives the embedding only, got head=True; use one of them')
    if plain and not hasattr(model, 'pretrained_cfg'):
        raise ValueError(f'plain=True needs a model of timm.create_model, got one of {type(model).__name__}.build')
    if dim is not None:
        check_size(model.embed_dims, dim)
        if not model._pooled:
            raise ValueError(f'dim needs pooled features, got {dim} for a model without a pooling; leave it out')
    with model.at_width(model.width if width is None else width):
        classes = type(model)
        dense: Any = densify(model).eval()
        width = model.width
        parts: dict[str, nn.Module] = OrderedDict()
        if model.embed_dim and model._pooled:
            parts['neck'] = fold_neck(dense.neck, dim)
        if head:
            parts['fc'] = dense.fc if dim is None else cut_classifier(dense.fc, dim)
        _become_dense(dense, model, _join(parts))
    if not plain:
        return dense
    name = model.pretrained_cfg['architecture'].removeprefix('sfsc_')
    args = {**classes.plain_args(width * model._full_width, model._family_args), 'num_classes': dense.num_classes}
    return _to_plain(dense, name, args, classes)


def scriptable(model: Any) -> nn.Module:
    """Dense model of the active width that trains as it does: the neck is not folded."""
    dense: Any = densify(model)
    parts = OrderedDict((n, m) for n, m in (('neck', dense.neck), ('fc', dense.fc)) if not isinstance(m, nn.Identity))
    _become_dense(dense, model, _join(parts) if model._pooled else nn.Identity())
    return dense


def _join(parts: dict[str, nn.Module]) -> nn.Module:
    if len(parts) == 1:
        return next(iter(parts.values()))
    return nn.Sequential(OrderedDict(parts)) if parts else nn.Identity()


def _become_dense(dense: Any, model: Any, classifier: nn.Module) -> None:
    """Turns a densified copy into an object of timm's class, with `classifier` in the place timm gives it."""
    cls = type(model)
    pooled = model._pooled_sizes[model._slim.index]
    dense.__class__ = cls.timm_class()
    for name in ('neck', 'fc'):
        dense._modules.pop(name)
    for name in _OWN:
        dense.__dict__.pop(name, None)
    for entry in dense.feature_info:
        entry.pop('num_chs_by_width', None)
    dense.set_submodule(cls.classifier_name, classifier.train(dense.training))
    last = [m for m in classifier.modules() if hasattr(m, 'out_features')]
    dense.num_classes = last[-1].out_features if last else 0
    dense.head_hidden_size = pooled
    if 'embed_dim' in signature(cls.timm_class()).parameters:  # a transformer's name for its number of features
        dense.embed_dim = dense.num_features
    cfg = deepcopy(getattr(model, 'pretrained_cfg', {}))
    cfg.update(num_classes=dense.num_classes, classifier=cls.classifier_name)
    dense.pretrained_cfg = dense.default_cfg = cfg


def _to_plain(dense: Any, name: str, args: dict[str, Any], cls: Any) -> nn.Module:
    """Loads `dense` into the model that plain timm makes, padding where that one is wider."""
    parameter = next(dense.parameters())
    plain: Any = timm.create_model(name, **args, device=parameter.device, dtype=parameter.dtype).eval()
    wanted = plain.state_dict()
    state = cls.adapt_to_plain(dense.state_dict(), wanted)
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or extra:
        raise ValueError(
            f'plain timm cannot express this sub-model: its {name} with {args} '
            f'lacks {sorted(extra)[:3]} and wants {sorted(missing)[:3]}; use extract(plain=False)'
        )
    plain.load_state_dict({key: _pad(key, tensor, wanted[key].shape) for key, tensor in state.items()})
    plain.pretrained_cfg = plain.default_cfg = {**dense.pretrained_cfg, 'architecture': name}
    return plain


def _pad(key: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """`tensor` in the leading corner of `shape`; the rest is 0, and 1 for a variance, so that padded channels are 0."""
    if tensor.shape == shape:
        return tensor
    padded = torch.full(shape, 1.0 if key.endswith('running_var') else 0.0, dtype=tensor.dtype, device=tensor.device)
    padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return padded
