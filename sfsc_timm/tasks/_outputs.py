"""One forward: logits and embedding, in training or in its midst, and the loss of a width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from timm.utils import unwrap_model
from torch import Tensor, nn

from ..losses import Objective, Reference, SubModelOutput
from ..models import get_widths
from ..models._alone import count_anew
from ..models._heads import classify_leading
from ..slim import sliced_leaves

__all__ = ['embedding_of', 'evaluating', 'run_width', 'run_with_embedding']


def run_with_embedding(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a slimmable model, wrapped for several processes or not, and keeps what its classifier is given.

    Args:
        module: The model; not compiled, since a graph gives its output only.
        images: (B, C, H, W).

    Returns:
        Logits (B, classes) and embedding (B, D).
    """
    seen: list[Tensor] = []
    model: Any = unwrap_model(module)
    hook = model.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = module(images)
    finally:
        hook.remove()
    return logits, seen[0]


def embedding_of(model: Any, images: Tensor) -> Tensor:
    """Embedding (B, D) of images (B, C, H, W) by a slimmable model, at its active width."""
    embedding: Tensor = model.embed(images)
    return embedding


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Has `model` in evaluation for the length of a `with` block; every module then gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_width(
    module: nn.Module,
    objective: Objective,
    index: int,
    batch: tuple[Tensor, Tensor],
    reference: Reference | None,
    kl_scale: float,
    take: Callable[[Tensor, list[Tensor]], None] | None,
    leaves: Callable[[nn.Module], AbstractContextManager[list[Tensor]]] = sliced_leaves,
) -> tuple[SubModelOutput, Tensor, Tensor]:
    """Runs a slimmable model at its active width, and has its loss differentiated.

    Args:
        module: The model, compiled or wrapped for several processes or not.
        objective: What the width is trained for.
        index: Number of the width, ascending.
        batch: Images (B, C, H, W), and class indices (B,) or class probabilities (B, classes).
        reference: The full-width model, if the objective uses it and this is not that model itself.
        kl_scale: Annealing factor of the loss's regulariser.
        take: Is given the loss () with its graph, and one tensor per parameter at slice size; None for no gradients.
        leaves: Gives these tensors for the length of a `with` block, and has the model run on them.

    Returns:
        Output, loss () and mean uncertainty (), all detached.
    """
    images, target = batch
    model: Any = unwrap_model(module)
    slices: AbstractContextManager[list[Tensor]] = nullcontext([]) if take is None else leaves(model)
    is_kept = objective.keeps_full and index == len(get_widths(model)) - 1
    if is_kept:
        count_anew(model)
    with evaluating(model) if is_kept else nullcontext(), slices as given:
        if objective.uses_embedding:
            classify = partial(classify_leading, model.get_classifier())
            output = SubModelOutput(*run_with_embedding(module, images), classify)
        else:
            logits = module(images)
            output = SubModelOutput(logits, logits)  # the second is not looked at
        loss, uncertainty = objective(index, output, target, reference, kl_scale)
        if take is not None:
            take(loss, given)
    return SubModelOutput(output.logits.detach(), output.embedding.detach()), loss.detach(), uncertainty.mean()
