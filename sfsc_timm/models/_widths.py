"""Widths: which sets are allowed, how channels are rounded, and the one function that switches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from typing import Any, TypeVar

from timm.layers import make_divisible
from torch import nn
from torch.fx import GraphModule

from .._private import allow_graphs, update_model_args
from ..slim import check_intact, guards, slim_states

__all__ = ['DEFAULT_WIDTHS', 'at_width', 'check_widths', 'get_width', 'get_widths', 'scale_channels', 'set_width']

_T = TypeVar('_T')

DEFAULT_WIDTHS = (0.25, 0.5, 0.75, 1.0)  # φ1/16, φ1/4, φ9/16, φ


def check_widths(widths: Sequence[float]) -> tuple[float, ...]:
    """Validates a set of widths.

    Args:
        widths: Numbers in (0, 1], each once, 1.0 among them, in any order. They are different in six digits, by which
            folders and branches are named.

    Returns:
        The widths as floats, ascending.

    Raises:
        ValueError: If it is not such a set.
    """
    allowed = 'allowed is any set of different numbers in (0, 1] that contains 1.0, such as (0.25, 0.5, 0.75, 1.0)'
    try:
        checked = tuple(sorted(float(w) for w in widths))
    except (TypeError, ValueError):
        raise ValueError(f'widths must be a sequence of numbers, got {widths!r}; {allowed}') from None
    if not all(0 < w <= 1 for w in checked):  # NaN is neither
        raise ValueError(f'widths must be in (0, 1], got {widths!r}; {allowed}')
    if len({f'{w:g}' for w in checked}) != len(checked) or 1.0 not in checked:
        raise ValueError(
            f'widths must be different numbers, in their first six digits too, and contain 1.0, got {widths!r}; '
            f'{allowed}'
        )
    return checked


def scale_channels(channels: int, width: float) -> int:
    """Channels of a layer at a width: the nearest multiple of 8, or the next one up if that loses over 10 %.

    This is timm's own `make_divisible`, the rounding of MobileNet and EfficientNet. Full width keeps any number.

    Args:
        channels: Channels at width 1.0.
        width: In (0, 1].
    """
    return channels if width == 1.0 else min(channels, int(make_divisible(channels * width)))


def set_width(module: nn.Module, width: float) -> None:
    """Makes `width` the active width of every slimmable model in `module`.

    Works through wrappers, too: features_only (its `feature_info` follows), ModelEma, DistributedDataParallel,
    torch.compile, or any module that contains a slimmable model.

    Args:
        module: A slimmable model or something that wraps one.
        width: One of the widths the model was created with.

    Raises:
        ValueError: If the width is unknown (the message lists the known ones), `module` holds no slimmable model, or it
            is an FX graph of another width, or something of one width has taken the place of a part of the model.
        RuntimeError: If another thread is running the model; see `sfsc_timm.slim.Guard`.
    """
    widths = get_widths(module)
    index = _index(widths, width)
    if any(isinstance(child, GraphModule) for child in module.modules()) and width != get_width(module):
        raise ValueError(
            f'an FX graph keeps the width of its tracing, {get_width(module)}, got {width}: '
            'set the width of the model and trace it again'
        )
    _switch(module, index)
    for child in module.modules():
        if '_slim' in child.__dict__ and '_model_args' in child.__dict__:  # by which timm's save functions rebuild it
            update_model_args(child, width=widths[index])
        _switch_feature_info(child, index)
    allow_graphs(2 * len(widths))


def get_widths(module: nn.Module) -> tuple[float, ...]:
    """Widths of the slimmable model in `module`, ascending.

    Raises:
        ValueError: If there is none, or several with different widths.
    """
    return _only({state.widths for _, state in slim_states(module)}, module)


def get_width(module: nn.Module) -> float:
    """Active width of the slimmable model in `module`.

    Raises:
        ValueError: If there is none, or several at different widths.
    """
    return _only({state.widths[state.index] for _, state in slim_states(module)}, module)


@contextmanager
def at_width(module: nn.Module, width: float) -> Iterator[Any]:
    """Sets a width for the length of a `with` block, then goes back to the one before.

    Raises:
        ValueError: As `set_width`.
        RuntimeError: As `set_width`; and another thread must not switch during the block.
    """
    before = get_width(module)
    _switch(module, _index(get_widths(module), width), hold=True)
    try:
        set_width(module, width)
        yield module
    finally:
        for guard in guards(module):
            guard.release()
        set_width(module, before)


def _switch(module: nn.Module, index: int, hold: bool = False) -> None:
    """Switches all parts at once, as seen by other threads; with `hold`, these have to leave the width alone."""
    found = guards(module)
    with ExitStack() as stack:
        for guard in found:
            stack.enter_context(guard.lock)
        if any(state.index != index for _, state in slim_states(module)):
            check_intact(module)
            for guard in found:
                guard.switch()
            for child, state in slim_states(module):
                state.switch(child, index)
        for guard in found if hold else ():
            guard.hold()


def _only(found: set[_T], module: nn.Module) -> _T:
    if not found:
        raise ValueError(
            f'module must be or contain a slimmable model, got {type(module).__name__}; '
            "create one with timm.create_model('sfsc_...')"
        )
    if len(found) > 1:
        raise ValueError(
            f'module must hold slimmable models that agree on their width, got a {type(module).__name__} with '
            f'{sorted(found)}; call this for each of them'  # type: ignore[type-var]
        )
    return found.pop()


def _index(widths: tuple[float, ...], width: Any) -> int:
    for index, known in enumerate(widths):
        if isinstance(width, Real) and f'{float(width):g}' == f'{known:g}':  # 1/3 is as good as 0.333333, its name
            return index
    raise ValueError(f'width must be one of {widths}, got {width!r}; widths are chosen when the model is created')


def _switch_feature_info(module: nn.Module, index: int) -> None:
    """`feature_info` of a model or of timm's features_only wrapper tells the channels of the active width."""
    info: Any = module.__dict__.get('feature_info')
    for entry in getattr(info, 'info', info) or ():
        if 'num_chs_by_width' in entry:
            entry['num_chs'] = entry['num_chs_by_width'][index]
