"""SFSC's aggregation of the sub-models' gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._private import foreach_add_, foreach_mul_
from ..slim import Rectangle, SharedCut, SliceLayout
from .gramian import Gradients, GramianPlan
from .weighting import Weighting, resolve_weighting

SCOPES = ('global', 'shell', 'layer')


@dataclass(frozen=True)
class Projection:
    """The aggregated gradient, and what it was decided from.

    Args:
        gradients: One tensor per parameter, at the parameter's full size; None where no width had a gradient.
        gramians: `(decisions, widths, widths)` in float64 on the CPU: the Gramian behind each row of `weights`.
        weights: `(decisions, widths)` in float64 on the CPU. One decision per shell with at least one parameter, per
            parameter, or one in all, by scope.
        shells: `(widths, widths, widths)` in float64 on the CPU: the Gramian of each shell over all shared parameters,
            whatever the scope. Their sum is the Gramian of the zero-padded gradients.
    """

    gradients: list[Tensor | None]
    gramians: Tensor
    weights: Tensor
    shells: Tensor

    @property
    def norms(self) -> Tensor:
        """Norms `(widths,)` of the widths' gradients over the shared parameters."""
        return self.shells.sum(0).diagonal().sqrt()

    @property
    def cosines(self) -> Tensor:
        """Cosines `(widths, widths)` of each two widths over the parameters that both have; 0 for a zero gradient."""
        inside = self.shells.cumsum(0)
        smaller = torch.arange(len(inside))
        smaller = torch.minimum(smaller[:, None], smaller)
        squares = inside.diagonal(dim1=1, dim2=2)
        # Row i of squares[smaller[i, j]] is |g_i|^2 over the box of the smaller of the two widths i and j.
        squares = squares[smaller, torch.arange(len(inside))[:, None]]
        lengths = squares.sqrt() * squares.mT.sqrt()
        products = self.shells.sum(0)
        return torch.where(lengths == 0.0, 0.0, products / lengths)

    @property
    def conflict_rate(self) -> float:
        """Share in [0, 1] of the pairs of widths, over all decisions, whose inner product is negative."""
        present = self.gramians.diagonal(dim1=1, dim2=2) != 0.0
        pairs = (present[:, :, None] & present[:, None, :]).tril(-1)
        conflicts = (self.gramians < 0.0) & pairs
        return int(conflicts.sum()) / max(1, int(pairs.sum()))


class GradientProjection:
    """Sums the gradients of nested sub-models, each first projected off those it conflicts with.

    A gradient g_i with <g_i, g_j> < 0 loses its component along g_j (PCGrad, Yu et al. 2020). The result is a weighted
    sum of the g_i whose weights follow from their Gramian. Since the sub-models share only nested slices, the scope
    says over which parameters an inner product runs:

    - 'global': one decision. Gradients are padded with zeros to the whole network, so that a larger width's gradient
      also changes, outside of the smaller one's slice, with the conflict inside of it.
    - 'shell': one decision for each shell, that is for the parameters that exactly the widths >= k share, over all
      layers. No padding takes part.
    - 'layer': one decision for each parameter tensor, padded with zeros within this tensor.

    Private segments (per-width normalisation) take part in no Gramian and pass unchanged.

    Memory: `project_` needs none beside the given gradients, `project` that of its result. Both hold a chunk of
    1 MB per width (32 MB on an accelerator) while they compute the Gramians.

    A gradient that is not finite leaves its mark: its Gramian is not finite, the weights become 1, and the sum keeps
    the inf or NaN, by which a GradScaler knows to skip the step.

    Args:
        layout: The nested slices.
        weighting: 'pcgrad', 'sum' (no projection), the name of a TorchJD weighting, or any function from the Gramian
            `(m, m)` to weights `(m,)`, such as a TorchJD `Weighting`. With 'shell' it sees only the widths that share
            the shell; so choose another scope for one that keeps a memory or a preference of m entries. Many of
            TorchJD's return an average, 1 / m of the size of PCGrad's sum.
        scope: 'global', 'shell' or 'layer'.
        generator: CPU generator of PCGrad's random orders. Same seed on all processes of a distributed run. By
            default a new one with seed 0.

    Raises:
        ValueError: If the weighting or the scope is unknown, or the generator is not on the CPU.
    """

    def __init__(
        self,
        layout: SliceLayout,
        weighting: str | Weighting = 'pcgrad',
        scope: str = 'shell',
        generator: torch.Generator | None = None,
    ) -> None:
        if scope not in SCOPES:
            raise ValueError(f'scope must be one of {", ".join(SCOPES)}, got {scope!r}.')
        if generator is not None and generator.device.type != 'cpu':
            raise ValueError(f'generator must be on the CPU, got {generator.device}; make it by torch.Generator().')
        self.layout = layout
        self.scope = scope
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.weighting = resolve_weighting(weighting, self.generator)
        self._shapes = [layout.shapes(width) for width in range(layout.num_widths)]
        self._cells, self._decisions = _cells(layout, scope)
        self._gramian_plan = GramianPlan(self._cells, layout.num_widths)

    def project_(self, gradients: Gradients) -> Projection:
        """Aggregates the gradients into those of the largest width, which are overwritten.

        Args:
            gradients: One gradient per width (ascending) and parameter, at slice size. None is a missing gradient.
                Those of the largest width must not share memory with any other, as those of a `GradientAccumulator`
                do not; clear it afterwards.

        Returns:
            The result. Its gradients are the tensors given for the largest width, where there was one.
        """
        self._check(gradients)
        shared = [isinstance(cut, SharedCut) for cut in self.layout.parameters]
        return self._project(
            gradients, [own if keep else None for own, keep in zip(gradients[-1], shared, strict=True)]
        )

    def project(self, gradients: Gradients, out: Sequence[Tensor | None] | None = None) -> Projection:
        """Aggregates the gradients and leaves them as they are, for more to be accumulated.

        Args:
            gradients: One gradient per width (ascending) and parameter, at slice size. None is a missing gradient.
            out: Tensors of full size to write to, such as the parameters' `.grad`. None asks for a new one.

        Returns:
            The result.
        """
        self._check(gradients)
        return self._project(gradients, list(out) if out is not None else [None] * len(self.layout.parameters))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the random generator, to resume exactly."""
        return {'generator': self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.generator.set_state(state['generator'].cpu())

    def _check(self, gradients: Gradients) -> None:
        """Checks the number and the shapes of the gradients."""
        m, n = self.layout.num_widths, len(self.layout.parameters)
        if len(gradients) != m or any(len(width) != n for width in gradients):
            raise ValueError(
                f'gradients must hold {n} gradients (or None) for each of {m} widths, got '
                f'{[len(width) for width in gradients]}.'
            )
        for k, width in enumerate(gradients):
            for j, (gradient, shape) in enumerate(zip(width, self._shapes[k], strict=True)):
                if gradient is not None and gradient.shape != shape:
                    raise ValueError(
                        f'gradients[{k}][{j}] must have the shape {shape} of its slice, got {tuple(gradient.shape)}; '
                        'they are taken at slice size.'
                    )

    @torch.no_grad()
    def _project(self, gradients: Gradients, out: list[Tensor | None]) -> Projection:
        """Fills `out`, of which the entries for the largest width's gradients may be these gradients."""
        results = [self._allocate(gradients, parameter, given) for parameter, given in enumerate(out)]
        cells = self._gramian_plan(gradients)
        gramians, weights = [], []
        for members in self._decisions:
            gramian = cells[members].sum(0)
            # Shells are in ascending order, so these are the widths that have a part in at least one of the cells.
            first = self._cells[members[0]][0].shell
            chosen = torch.zeros_like(gramian[0])
            chosen[first:] = self._weigh(gramian[first:, first:])
            for member in members:
                _combine(gradients, results, self._cells[member], chosen.tolist())
            gramians.append(gramian)
            weights.append(chosen)
        shells = cells.new_zeros(self.layout.num_widths, *cells.shape[1:])
        shells.index_add_(0, torch.tensor([cell[0].shell for cell in self._cells], dtype=torch.long), cells)
        if not gramians:
            return Projection(results, cells, cells.new_zeros(0, self.layout.num_widths), shells)
        return Projection(results, torch.stack(gramians), torch.stack(weights), shells)

    def _weigh(self, gramian: Tensor) -> Tensor:
        """Computes the weights of a Gramian, 1 for one that is not finite."""
        if not gramian.isfinite().all():
            return torch.ones_like(gramian[0])
        return self.weighting(gramian).to(gramian)

    def _allocate(self, gradients: Gradients, parameter: int, given: Tensor | None) -> Tensor | None:
        """Makes the tensor for one parameter's result. That of a private one is complete with this."""
        found = next((width[parameter] for width in gradients if width[parameter] is not None), None)
        if found is None:
            return given if given is None else given.zero_()
        boxes = self.layout.boxes[parameter]
        if isinstance(self.layout.parameters[parameter], SharedCut):
            return found.new_empty(boxes[-1]) if given is None else given
        parts = [width[parameter] for width in gradients]
        whole = torch.cat([found.new_zeros(n) if p is None else p for p, n in zip(parts, boxes, strict=True)])
        return whole if given is None else given.copy_(whole)


def _cells(layout: SliceLayout, scope: str) -> tuple[list[list[Rectangle]], list[list[int]]]:
    """Sorts the rectangles into the cells whose Gramians are needed, and the cells into decisions."""
    cells: dict[tuple[int, int], list[Rectangle]] = {}
    for rectangle in layout.rectangles:
        if rectangle.numel:
            parameter = rectangle.parameter if scope == 'layer' else 0
            cells.setdefault((parameter, rectangle.shell), []).append(rectangle)
    keys = sorted(cells)
    decisions: dict[tuple[int, int], list[int]] = {}
    for index, (parameter, shell) in enumerate(keys):
        decisions.setdefault((parameter, shell if scope == 'shell' else 0), []).append(index)
    return [cells[key] for key in keys], list(decisions.values())


def _combine(gradients: Gradients, out: list[Tensor | None], cell: list[Rectangle], weights: list[float]) -> None:
    """Writes the weighted sum of the widths' gradients to one cell of the result.

    Args:
        gradients: One gradient per width and parameter, at slice size.
        out: The result. Entries may be the gradients of the largest width themselves.
        cell: Rectangles of one shell.
        weights: One weight per width.
    """
    targets = [
        (rectangle, whole[rectangle.index]) for rectangle in cell if (whole := out[rectangle.parameter]) is not None
    ]
    if not targets:
        return
    # Beside a gradient of almost nothing, a weight can exceed what the type holds, which torch refuses.
    limit = torch.finfo(targets[0][1].dtype).max
    weights = [max(-limit, min(limit, weight)) for weight in weights]
    for rectangle, target in targets:
        own = gradients[-1][rectangle.parameter]
        if own is None:
            target.zero_()
        elif own is not out[rectangle.parameter]:
            target.copy_(own[rectangle.index])
    if weights[-1] != 1.0:
        foreach_mul_([target for _, target in targets], weights[-1])
    for width in range(cell[0].shell, len(weights) - 1):
        terms = [
            (target, gradient[rectangle.index])
            for rectangle, target in targets
            if (gradient := gradients[width][rectangle.parameter]) is not None
        ]
        if terms:
            # A weight of 0 is no reason to leave one out: 0 times inf must show.
            foreach_add_([target for target, _ in terms], [term for _, term in terms], alpha=weights[width])
