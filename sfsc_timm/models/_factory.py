"""What every family's entry points call: timm's builder, and warm starts from timm's own ImageNet weights."""

from __future__ import annotations

import logging
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs
from torch import Tensor, nn

from ..slim import PrivateCut, slim_state
from ._features import WRAPPERS
from ._limits import check_arguments
from ._shipped import with_shipped
from ._slimmable import Slimmable

__all__ = ['checkpoint_filter_fn', 'create_slimmable', 'warm_start', 'zoo_cfgs']

_logger = logging.getLogger(__name__)


def create_slimmable(
    cls: type[Slimmable],
    variant: str,
    pretrained: bool,
    feature_cfg: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """`build_model_with_cfg` for a slimmable family."""
    check_arguments(kwargs)
    features: dict[str, Any] = dict(feature_cfg or {})
    kind = kwargs.pop('feature_cls', features.get('feature_cls', 'list'))
    features['feature_cls'] = WRAPPERS.get(kind.lower(), kind) if isinstance(kind, str) else kind
    model: nn.Module = build_model_with_cfg(
        cls.build, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=features, **kwargs
    )
    return model


def zoo_cfgs(*names: str) -> Any:
    """Pretrained configurations of a family: what ships with the package, and warm starts from timm's weights.

    Args:
        *names: timm's models ('resnet50.a1_in1k') that the family's start from.
    """
    return generate_default_cfgs(with_shipped({f'sfsc_{name}': warm_start(name, classifier='fc') for name in names}))


def warm_start(name: str, **changes: Any) -> dict[str, Any]:
    """Pretrained config of timm's model `name` ('resnet50.a1_in1k'), with the full id of its weights on the Hub.

    Args:
        name: Architecture and tag in timm.
        **changes: Entries to replace, such as the classifier's name.
    """
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    entries = {k: v for k, v in vars(cfg).items() if v is not None and k not in ('architecture', 'tag', 'url')}
    return {**entries, 'hf_hub_id': f'timm/{name}', **changes}


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: Slimmable) -> dict[str, Tensor]:
    """Brings a checkpoint of timm's plain model into the slimmable form; our own pass as they are, if they fit.

    Backbone weights are taken over, every width's normalisation starts as the leading slice of the full one's, and
    where there is a neck, neck and classifier keep their fresh values. Widths below 1.0 need training to be of use.

    Args:
        state_dict: Checkpoint.
        model: The model that it goes into.

    Raises:
        ValueError: It is a slimmable model's of other widths or sizes.
    """
    own = model.state_dict()
    if any(key not in own or own[key].shape != tensor.shape for key, tensor in state_dict.items()):
        state_dict = type(model).as_timm_loads(state_dict, model)
    slimmable = any(key.startswith('neck.') for key in state_dict)
    if slimmable and not model.embed_dim:  # plain classification on the backbone
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith('neck.')}
    backbone = {key: tensor for key, tensor in state_dict.items() if not key.startswith('fc.')}
    differing = {key for key, tensor in backbone.items() if key not in own or own[key].shape != tensor.shape}
    if slimmable:  # other channels of the input are timm's to adapt
        differing.discard(f'{getattr(model, "pretrained_cfg", {}).get("first_conv")}.weight')
    if not differing:
        return state_dict
    if slimmable:
        raise ValueError(
            'the checkpoint is of a slimmable model with other widths or sizes than this one '
            f'(widths={model.widths}, embed_dim={model.embed_dim}); create the model with those of the checkpoint.'
        )
    plain_classifier = f'{type(model).classifier_name}.'
    converted = {}
    for key, tensor in state_dict.items():
        if key.startswith(plain_classifier):
            if model.embed_dim:
                continue
            key = 'fc.' + key.removeprefix(plain_classifier)  # noqa: PLW2901
        converted[key] = _stored(model, key, tensor)
    fresh = {key: tensor for key, tensor in own.items() if key.startswith(('neck.', 'fc.')) and key not in converted}
    model.fresh_parts = tuple(sorted({key.split('.')[0] for key in fresh}))
    if fresh:
        _logger.warning(
            'Warm start from plain timm weights: %s are new, and widths below 1.0 need training.',
            ' and '.join(model.fresh_parts),
        )
    return {**converted, **fresh}


def _stored(model: nn.Module, key: str, tensor: Tensor) -> Tensor:
    """Form in which the model stores the full-width `tensor`."""
    path, _, name = key.rpartition('.')
    try:
        state = slim_state(model.get_submodule(path))
    except AttributeError:  # load_state_dict reports the unexpected key
        return tensor
    cut = state.cuts.get(name) if state is not None else None
    if isinstance(cut, PrivateCut) and tensor.shape == cut.shapes[-1]:
        return cut.store(tensor)
    return tensor
