"""Steps that take turns in one process, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Name = TypeVar('Name')


def in_turns(
    steps: Mapping[Name, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, list[float]]:
    """Seconds of every call but the first, which warms up; every second round goes the other way.

    Args:
        steps: What to call, by name.
        rounds: Timed calls of each.
        clock: Tells the seconds.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in reversed([*steps]) if turn % 2 else steps:
            start = clock()
            steps[name]()
            if turn:
                seconds[name].append(clock() - start)
    return seconds
