"""Widths that a model was not made with: one that is added after training, and those between its own ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from numbers import Real
from typing import Any

from .._private import update_model_args
from ..slim import check_intact, guards, insert_width, slim_states
from ._widths import check_widths

__all__ = ['add_width', 'with_widths_between']

_STEPS = 32  # widths in (0, 1] among which those between are looked for


def add_width(model: Any, width: float) -> None:
    """Gives a slimmable model a width that it was not made with, see `Slimmable.add_width`."""
    widths = _with_one_more(model.widths, width)
    index, active = widths.index(float(width)), model.width
    like = _like(model, widths)
    for other in (index - 1, index + 1):
        if other >= 0 and _is_same_network(like, index, other):
            raise ValueError(
                f'width must give a network of its own, got {width:g}, which is the same as {widths[other]:g} '
                'once channels or heads are rounded; choose one further away'
            )
    check_intact(model)
    with ExitStack() as stack:
        for guard in guards(model):
            stack.enter_context(guard.lock)
            guard.switch()
        insert_width(model, like, index)
    model._pooled_sizes = like._pooled_sizes
    for entry, other_entry in zip(model.feature_info, like.feature_info, strict=True):
        entry['num_chs_by_width'] = other_entry['num_chs_by_width']
    if hasattr(model, '_model_args'):  # by which timm's save functions rebuild it
        update_model_args(model, widths=list(widths))
    model.set_width(active)


def with_widths_between(model: Any) -> tuple[Any, list[int]]:
    """The architecture with further widths between its own ones, on the meta device, to look at.

    Args:
        model: The slimmable model.

    Returns:
        A model of its widths and of multiples of 1/32 between the narrowest and 1.0; and the numbers of those that are
        networks of their own.

    Raises:
        ValueError: The family gives a width between a tensor that its own widths do not have.
    """
    widths = model.widths
    for step in range(1, _STEPS):
        if widths[0] < step / _STEPS:
            with suppress(ValueError):  # a number of heads that is there
                widths = _class_of(model).choose_widths(
                    _with_one_more(widths, step / _STEPS), model._full_width, model._family_args
                )
    like = _like(model, widths)
    names = [[tuple(state.cuts) for _, state in slim_states(m)] for m in (model, like)]
    if names[0] != names[1]:
        raise ValueError(
            f'{_class_of(model).__name__} has tensors that are the same at all of {model.widths} and others between; '
            'give it more widths'
        )
    own = [widths.index(width) for width in model.widths]
    return like, [
        n
        for narrow, wide in pairwise(own)
        for n in range(narrow + 1, wide)
        if not _is_same_network(like, n, n - 1) and not _is_same_network(like, n, wide)
    ]


def _with_one_more(widths: tuple[float, ...], width: Any) -> tuple[float, ...]:
    if isinstance(width, bool) or not isinstance(width, Real) or not 0 < float(width) < 1:
        raise ValueError(
            f'width must be a number above 0 and below 1, got {width!r}; it is a slice of the wider ones, and nothing '
            'is wider than 1.0'
        )
    if f'{float(width):g}' in {f'{known:g}' for known in widths}:
        raise ValueError(f'width must be one that the model does not have, got {width:g} of {widths}; it can be used')
    return check_widths((*widths, float(width)))


def _like(model: Any, widths: Sequence[float]) -> Any:
    """The architecture at other widths, on the meta device, to look at."""
    kind, scale = model._classifier
    return _class_of(model).build(
        widths=widths,
        embed_dim=None if model.embed_dims else 0,
        embed_dims=list(model.embed_dims) or None,
        neck_norm=model._neck_norm,
        classifier_type=kind,
        cosine_scale=scale,
        num_classes=model.num_classes,
        full_width=model._full_width,
        own_necks=model._own_necks,
        **_family_args(model),
    )


def _class_of(model: Any) -> Any:
    """The family's class, which a model with tensors of its own at the root has a subclass of."""
    return getattr(type(model), '_dense_class', type(model))


def _family_args(model: Any) -> dict[str, Any]:
    return {**model._family_args, 'device': 'meta', 'dtype': next(model.parameters()).dtype}


def _is_same_network(like: Any, *indices: int) -> bool:
    cuts: Iterable[Any] = (cut for _, state in slim_states(like) for cut in state.cuts.values())
    return all(len({cut.shapes[index] for index in indices}) == 1 for cut in cuts)
