"""What each width costs, measured once and kept beside the checkpoint."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._files import write_json
from ..evaluation import latency, model_cost

__all__ = ['MEASUREMENTS', 'WidthCost', 'machine', 'read_measurements', 'width_cost', 'write_measurements']

MEASUREMENTS = 'measurements.json'


@dataclass(frozen=True)
class WidthCost:
    """Cost of a published sub-model.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one image.
        latency_ms: Median time of one image, in milliseconds.
        machine: What it was timed on.
        input_size: (C, H, W) of that image.
    """

    params: int
    macs: int
    latency_ms: float
    machine: str
    input_size: tuple[int, ...]


def read_measurements(folder: Path, compatibility: str) -> dict[str, Any]:
    """What has been measured of a checkpoint, empty if nothing was.

    Raises:
        ValueError: The file is damaged.
    """
    return dict(_read(folder / MEASUREMENTS).get(compatibility, {}))


def write_measurements(folder: Path, compatibility: str, values: dict[str, Any]) -> None:
    """Replaces what is recorded of a checkpoint; other checkpoints in the folder keep theirs."""
    path = folder / MEASUREMENTS
    write_json(path, {**_read(path), compatibility: values}, sort_keys=True)


def width_cost(
    folder: Path, compatibility: str, width: float, input_size: tuple[int, ...], make: Callable[[], nn.Module]
) -> WidthCost:
    """Cost of one width, from the record or measured now and recorded.

    Args:
        folder: Where the record is kept.
        compatibility: Id of the checkpoint.
        width: The width.
        input_size: (C, H, W) of an image; a record for another size is replaced.
        make: Gives the dense model, where it has to be measured.
    """
    record = read_measurements(folder, compatibility)
    costs = record.setdefault('widths', {})
    known = costs.get(f'{width:g}')
    if known is not None and tuple(known['input_size']) == tuple(input_size):
        return WidthCost(**{**known, 'input_size': tuple(known['input_size'])})
    dense = make()
    cost = model_cost(dense, input_size)
    seconds = latency(dense, torch.zeros(1, *input_size))
    measured = WidthCost(cost.params, cost.macs, round(1000 * seconds, 3), machine(), tuple(input_size))
    costs[f'{width:g}'] = asdict(measured)
    write_measurements(folder, compatibility, record)
    return measured


def machine() -> str:
    """Processor, threads and torch, as measurements name them."""
    threads = torch.get_num_threads()
    return f'{platform.machine()} CPU, {threads} thread{"s" * (threads > 1)}, torch {torch.__version__.split("+")[0]}'


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError) as error:
        raise ValueError(f'{str(path)!r} is damaged ({error}); delete it to measure again.') from error
