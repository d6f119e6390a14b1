"""Where to compute, and on how many threads."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ['check_threads', 'find_device', 'use_threads']


def find_device(name: str | None) -> torch.device:
    """The device of that name; cuda where there is one, or else cpu, for None.

    Raises:
        ValueError: It cannot be used here.
    """
    import torch

    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        if not isinstance(name, str):
            raise TypeError('it is no text')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of names that torch has given up
            # A device that computes: 'meta' makes tensors, too.
            (torch.ones(1, device=name) + 1).item()
            device = torch.empty(0, device=name).device
        if device.type == 'cpu' and name != 'cpu':
            raise RuntimeError('there is one cpu, without a number')
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f'device {name!r} cannot be used: {reason}; name one that computes here, such as cpu'
        ) from error
    return device


def check_threads(count: int) -> int:
    """Returns how many threads are meant: `count`, or one for each core for 0.

    Raises:
        ValueError: It is no whole number, or more than four times the cores (at least 64), which the system may refuse
            to start by ending the process.
    """
    cores = os.cpu_count() or 1
    most = max(64, 4 * cores)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= most:
        raise ValueError(f'threads must be a whole number from 0, for all cores, to {most}, got {count!r}')
    return count or cores


def use_threads(count: int) -> None:
    """Has torch compute on so many threads of the CPU.

    Args:
        count: The number, 0 for all cores.

    Raises:
        ValueError: As for `check_threads`.
    """
    import torch

    torch.set_num_threads(check_threads(count))
