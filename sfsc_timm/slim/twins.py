"""Makes a module slimmable by comparing it with its narrow twins.

A *twin* is the same architecture built narrow, by timm's own constructor, on the meta device: it costs no memory and is
only looked at. Its shapes say which slice of each tensor a width uses, its plain attributes (`groups`, `num_heads`,
`num_features`, ...) say what else changes. So a family joins by saying how to build itself narrow, and the slimmed
model computes, at every width, exactly what timm's narrow model computes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from .._private import BatchNormBase
from .geometry import Cut, PrivateCut, SharedCut
from .readers import Attributes, SlimState, attach

__all__ = ['NORMS', 'slim']

# Modules whose tensors every width owns: statistics and scales of features differ between widths (slimmable networks,
# Yu et al., ICLR 2019, section 3.3).
NORMS: tuple[type[nn.Module], ...] = (
    BatchNormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)

_PLAIN = (bool, int, float, str, type(None))


def slim(
    module: nn.Module,
    twins: Sequence[nn.Module],
    widths: Sequence[float],
    packed: Mapping[str, int] | None = None,
    private: bool = False,
) -> None:
    r"""Makes `module` slimmable in place.

    Args:
        module: The full-width module.
        twins: The same architecture at each narrower width, ascending, usually on the meta device.
        widths: All widths, ascending, ending in 1.0; one more than there are twins.
        packed: Regular expressions of tensor names whose first dimension packs several equal parts that are sliced one
            by one, e.g. `{r'attn\.qkv\.(weight|bias)$': 3}`.
        private: Whether every width owns all tensors, not those of norms alone.

    Raises:
        ValueError: If a twin has other modules or wider tensors than `module`.
    """
    if len(widths) != len(twins) + 1:
        raise ValueError(f'twins must be one fewer than widths, got {len(twins)} twins for widths {tuple(widths)}')
    by_name = [dict(twin.named_modules()) for twin in twins]
    for name, child in list(module.named_modules()):
        narrow = [_counterpart(name, child, modules, width) for modules, width in zip(by_name, widths, strict=False)]
        cuts = {
            tensor: cut
            for tensor in [*child._parameters, *child._buffers]
            if (cut := _cut(f'{name}.{tensor}'.lstrip('.'), child, narrow, tensor, packed or {}, private)) is not None
        }
        attributes = _attributes(child, narrow)
        if cuts or any(attributes):
            state = SlimState(tuple(widths), cuts, attributes)
            attach(child, state, traced=not isinstance(child, NORMS))


def _counterpart(name: str, child: nn.Module, twin: Mapping[str, nn.Module], width: float) -> nn.Module:
    found = twin.get(name)
    if found is None or (name and type(found) is not type(child)):
        got = 'no such module' if found is None else f'a {type(found).__name__}'
        raise ValueError(
            f'twin of width {width} must have the structure of the full model, got {got} for the '
            f'{type(child).__name__} {name!r}; the family has to build it so that only sizes differ'
        )
    return found


def _cut(
    name: str,
    child: nn.Module,
    twins: Sequence[nn.Module],
    tensor: str,
    packed: Mapping[str, int],
    private: bool,
) -> Cut | None:
    """Geometry of one tensor, or None where it is the same at every width."""
    full = child._parameters.get(tensor, child._buffers.get(tensor))
    if full is None:
        return None
    narrow = [twin._parameters.get(tensor, twin._buffers.get(tensor)) for twin in twins]
    shapes = (*(tuple(n.shape) if n is not None else () for n in narrow), tuple(full.shape))
    if private or isinstance(child, NORMS):
        return PrivateCut(shapes)
    if all(shape == shapes[-1] for shape in shapes):
        return None
    scales = any(shape[0] != shapes[-1][0] for shape in shapes)
    parts = next((n for pattern, n in packed.items() if re.search(pattern, name)), 1) if scales else 1
    try:
        return SharedCut(shapes, parts=(parts, *(1 for _ in shapes[-1][1:])))
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from None


def _attributes(child: nn.Module, twins: Sequence[nn.Module]) -> tuple[Attributes, ...]:
    """Plain attributes that differ between the widths, with their value at each."""
    names = [
        name
        for name, value in vars(child).items()
        if not name.startswith('_') and _is_plain(value) and any(vars(twin).get(name) != value for twin in twins)
    ]
    return tuple({name: vars(m)[name] for name in names if name in vars(m)} for m in (*twins, child))


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(_is_plain(v) for v in value))
