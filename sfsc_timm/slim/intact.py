"""Changes of modules that know one width only, refused by name at the next switch."""

from __future__ import annotations

from torch import nn

from .readers import SlimState, slim_state, slim_states

__all__ = ['check_intact', 'check_shapes']

_WAY_OUT = 'apply it to a model of one width, model.extract(width), or before the model is made slimmable'


def check_intact(module: nn.Module) -> None:
    """Checks that all modules still have their tensors for every width.

    Parametrizations and pruning take a tensor away, freeze_batch_norm_2d puts another norm in the place of one, and
    adapters (peft's LoRA) wrap a layer; all of them see the active width alone. `convert_sync_batchnorm` never gets
    that far: torch's own TypeError ends it at the first norm, before anything is changed.

    Raises:
        ValueError: If something is gone or of another size; the first is named.
    """
    for root, state in slim_states(module):
        if state.guard is None:
            continue
        for name, child in root.named_modules():
            own = slim_state(child)
            if own is None:
                _check_adapter(name, child)
                if child._buffers.get('running_mean') is not None and not name.startswith('fc.'):
                    raise ValueError(
                        f'{name} must be the norm that the model was made with, one for each width, got a '
                        f'{type(child).__name__} of one width; {_WAY_OUT}'
                    )
                continue
            gone = [tensor for tensor in own.cuts if tensor not in child._parameters and tensor not in child._buffers]
            if gone:
                raise ValueError(
                    f'{name}.{gone[0]} must be a tensor of the model for all widths, got none: a parametrization, '
                    f'pruning or an adapter took its place; {_WAY_OUT}'
                )
            _check_sizes(name, child, own)


def check_shapes(root: nn.Module) -> None:
    """Refuses tensors that were written back at the size of one width, as accelerate's offloading does.

    Raises:
        ValueError: The first one is named.
    """
    for name, module in root.named_modules():
        if (state := slim_state(module)) is not None:
            _check_sizes(name, module, state)


def _check_sizes(name: str, module: nn.Module, state: SlimState) -> None:
    for tensor, cut in state.cuts.items():
        source = module._parameters.get(tensor, module._buffers.get(tensor))
        if source is not None and source.shape != cut.full_shape:
            raise ValueError(
                f'{name}.{tensor} must hold all widths, {tuple(cut.full_shape)}, got {tuple(source.shape)}: it was '
                f'read at one width and put back (by offloading, say); {_WAY_OUT}'
            )


def _check_adapter(name: str, module: nn.Module) -> None:
    """Refuses what peft puts around a layer that slims: its own weights have the sizes of one width."""
    base = module._modules.get('base_layer')
    if base is None or slim_state(base) is None:
        return
    own = [parameter for parameter, _ in module.named_parameters() if not parameter.startswith('base_layer.')]
    if own:
        raise ValueError(
            f'{name} must be the layer that the model was made with, got a {type(module).__name__} around it, whose '
            f'{own[0]} has the size of one width; {_WAY_OUT}'
        )
