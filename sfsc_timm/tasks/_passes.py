"""All widths of a step, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from timm.utils import unwrap_model
from torch import Tensor, nn

from ..losses import Objective
from ..models import at_width, get_width, get_widths, set_width
from ._outputs import run_width
from ._random_widths import Leaves
from ._references import look_ahead, reference_of

__all__ = ['Ran', 'run_all']

Ran = tuple[Tensor, Tensor, Tensor]
Take = Callable[[int, Tensor, list[Tensor]], None]


def run_all(
    module: nn.Module,
    objective: Objective,
    parts: Sequence[tuple[Tensor, Tensor]],
    *,
    reference: Any,
    own_batches: bool,
    kl_scale: float,
    take: Take | None,
    drawn: Mapping[int, Sequence[Leaves]],
) -> tuple[list[Ran], list[Tensor]]:
    """Runs a slimmable model at every width, and has the losses differentiated.

    Args:
        module: The model, compiled or wrapped for several processes or not; its active width stays.
        objective: What each width is trained for.
        parts: Images and targets of every width, ascending.
        reference: Trained full-width model that is looked up to, None for the full width of the model itself.
        own_batches: Whether the widths' images differ.
        kl_scale: Annealing factor of the loss's regulariser.
        take: Is given a width's number, its loss () with its graph, and one tensor per parameter at slice size; None
            for no gradients.
        drawn: What `RandomWidths.draw` gives; their losses go to `take` with the number of the next wider width.

    Returns:
        Logits, loss () and mean uncertainty () of every width, ascending, all detached; and the losses of those drawn.
    """
    model = unwrap_model(module)
    widths = get_widths(model)
    last = len(widths) - 1
    references = look_ahead(model, objective, reference, [part[0] for part in parts], own_batches)
    # If the widths share their images, the full width's own forward is the reference, and has to come first.
    first = objective.uses_reference and reference is None and not own_batches
    found: dict[int, Ran] = {}
    between: list[Tensor] = []
    with at_width(model, get_width(model)):  # to come back to it
        for index in reversed(range(last + 1)) if first else range(last + 1):
            set_width(model, widths[index])
            taken = None if take is None else partial(take, index)
            output, loss, uncertainty = run_width(
                module, objective, index, parts[index], references[index], kl_scale, taken
            )
            found[index] = (output.logits, loss, uncertainty)
            if first and index == last:
                references = [reference_of(model, output.embedding)] * (last + 1)
            for leaves in drawn.get(index, ()):
                below = index - 1
                _, loss, _ = run_width(
                    module, objective, below, parts[below], references[below], kl_scale, taken, leaves
                )
                between.append(loss)
    return [found[index] for index in range(last + 1)], between
