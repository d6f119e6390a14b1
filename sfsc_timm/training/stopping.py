"""Stopping a run between two steps, by Ctrl-C or SIGTERM, on all processes at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

__all__ = ['Stop', 'StopSignal']

_logger = logging.getLogger(__name__)


class Stop(KeyboardInterrupt):
    """The run was asked to stop and has saved its state."""


class StopSignal:
    """Whether this run was asked to stop.

    Args:
        device: Where the processes of a distributed run talk to each other.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._came = False

    def came(self) -> bool:
        """Whether it came to any process: all have to stop at the same step."""
        if not dist.is_initialized():
            return self._came
        flag = torch.tensor([float(self._came)], device=self._device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets the step end and the state be saved, the second stops at once."""

        def handle(number: int, _: Any) -> None:
            if self._came:
                raise KeyboardInterrupt
            self._came = True
            _logger.warning('%s: stopping after this step; once more to stop at once', signal.Signals(number).name)

        try:
            before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs us there looks after signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
