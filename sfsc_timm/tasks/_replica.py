"""One model on several processes, for gradients that DistributedDataParallel's hooks never see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ['PendingMean', 'Replica']


class PendingMean:
    """Mean over all processes of a list of tensors, under way.

    Args:
        tensors: The same shapes on every process. Their memory is not needed after this.
        group: Process group, None for all.
    """

    def __init__(self, tensors: Sequence[Tensor], group: Any = None) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._places: list[tuple[torch.dtype, int]] = []
        sizes: dict[torch.dtype, int] = {}
        for tensor in tensors:
            start = sizes.get(tensor.dtype, 0)
            self._places.append((tensor.dtype, start))
            sizes[tensor.dtype] = start + tensor.numel()
        self._flat = {
            dtype: torch.cat([tensor.reshape(-1) for tensor in tensors if tensor.dtype == dtype]) for dtype in sizes
        }
        self._works = []
        for flat in self._flat.values():
            flat.div_(dist.get_world_size(group))  # before the sum, which could overflow half precision
            self._works.append(dist.all_reduce(flat, group=group, async_op=True))

    def wait(self) -> list[Tensor]:
        """The means, as views of one buffer per type."""
        for work in self._works:
            work.wait()
        return [
            self._flat[dtype][start : start + shape.numel()].view(shape)
            for (dtype, start), shape in zip(self._places, self._shapes, strict=True)
        ]


class Replica(nn.Module):
    """Wraps a process's copy of a model as DistributedDataParallel does, down to `module` and `no_sync`.

    Parameters and buffers start as those of the first process. Gradients are averaged on demand.

    Args:
        module: The model.
        broadcast_buffers: Take over the first process's buffers (running statistics) before each forward of a training
            step, as DistributedDataParallel does by default.
        group: Process group, None for all.
    """

    def __init__(self, module: nn.Module, broadcast_buffers: bool = True, group: Any = None) -> None:
        super().__init__()
        self.module = module
        self.synchronises = True
        self._broadcasts_buffers = broadcast_buffers
        self._group = group
        self.broadcast([*module.parameters(), *module.buffers()])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.module(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy of the model alone: an average of the weights has no use for a process group."""
        return deepcopy(self.module, memo)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Keeps the gradients of the forwards in the block on this process until one outside of it."""
        before, self.synchronises = self.synchronises, False
        try:
            yield
        finally:
            self.synchronises = before

    def broadcast_buffers(self) -> None:
        """Takes over the first process's buffers, if that is wanted."""
        if self._broadcasts_buffers:
            self.broadcast(list(self.module.buffers()))

    def broadcast_state(self, get: Callable[[], Tensor], put: Callable[[Tensor], Any]) -> None:
        """Takes over the first process's state of a random generator."""
        device = next(self.module.parameters()).device  # NCCL sends no CPU tensors
        state = get().to(device)
        dist.broadcast(state, self._first, group=self._group)
        put(state.cpu())

    def mean(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Mean over all processes of gradients that are missing on all of them or on none."""
        means = iter(PendingMean([g for g in gradients if g is not None], self._group).wait())
        return [None if g is None else next(means) for g in gradients]

    def start_mean(self, gradients: Sequence[Tensor]) -> PendingMean:
        """As `mean`, without waiting for it."""
        return PendingMean(gradients, self._group)

    def check_agreement(self, factor: Tensor) -> None:
        """Makes sure that `factor` () is the same on every process.

        Raises:
            RuntimeError: If it is not.
        """
        bounds = torch.stack([factor, -factor])
        dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self._group)
        highest, lowest = bounds.tolist()
        if highest != -lowest:
            raise RuntimeError(
                f'the loss must be scaled alike on every process, got factors from {-lowest} to {highest}: the '
                'gradients are averaged while the forward still runs, before the factor is known; use one scaler state'
            )

    @property
    def _first(self) -> int:
        return 0 if self._group is None else dist.get_global_rank(self._group, 0)

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites the tensors by the first process's, one message per type."""
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.broadcast(flat, self._first, group=self._group)
            for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view(tensor.shape))
