"""What a sub-model costs: parameters, multiply-adds, latency, bytes per gallery item."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

_SETTLE = 0.02  # seconds; idle threads of ONNX Runtime and OpenMP look for work for milliseconds before they sleep


@dataclass(frozen=True)
class Cost:
    """Cost of one model.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds for one image. This is what timm's model tables call GMACs and many papers FLOPs (ResNet-50
            at 224 px: 4.1 G); counting the multiplication and the addition apart gives twice as much.
    """

    params: int
    macs: int


def model_cost(model: nn.Module, input_size: tuple[int, ...] = (3, 224, 224)) -> Cost:
    """Count parameters and multiply-adds of a module as it stands (a dense one: `model.extract(width)`).

    Args:
        model: Module that takes one image batch; its parameters are all counted, whether they are used or not.
        input_size: Shape of one image `(C, H, W)`.

    Returns:
        The cost; convolutions and matrix products are counted, element-wise operations are not.
    """
    parameter = next(model.parameters(), torch.empty(0))
    image = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    try:
        # The counter does not know torch's own attention on CPUs; as matrix products it is counted.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        model.train(was_training)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def latency(function: Callable[[Tensor], object], example: Tensor, *, repeats: int = 15, warmup: int = 3) -> float:
    """Median wall-clock time of `function(example)` in seconds, under inference mode: `latencies` of one."""
    return latencies({'': function}, example, repeats=repeats, warmup=warmup)['']


def latencies(
    functions: Mapping[str, Callable[[Tensor], object]], example: Tensor, *, repeats: int = 15, warmup: int = 3
) -> dict[str, float]:
    """Median wall-clock times in seconds, under inference mode, of functions that take turns.

    What disturbs the machine disturbs them all, so ratios of these times hold on a busy one, too. Where there are
    several, each is called for some milliseconds before it is timed, so that none pays for what another left in the
    caches, or for its threads, which go on looking for work for a while.

    Args:
        functions: What to time, such as a model in evaluation mode, by name.
        example: Their argument; where it lies on a GPU, the GPU is waited for.
        repeats: Timed calls of each.
        warmup: Calls of each before them, which fill caches and compile.
    """
    if repeats < 1:
        raise ValueError(f'repeats must be at least 1, got {repeats}.')
    wait = torch.cuda.synchronize if example.is_cuda else _nothing
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    with torch.inference_mode():
        for name in names:
            for _ in range(warmup):
                functions[name](example)
        for turn in range(repeats):
            for place in range(len(names)):
                name = names[(place + turn) % len(names)]
                begin = time.perf_counter()
                while len(names) > 1 and time.perf_counter() - begin < _SETTLE:
                    functions[name](example)
                    wait()
                wait()
                start = time.perf_counter()
                functions[name](example)
                wait()
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def bytes_per_item(embed_dim: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes one image takes in a gallery of embeddings of `embed_dim` numbers: the same at every width."""
    return embed_dim * dtype.itemsize


def _nothing() -> None:
    pass
