"""Times of a width in all its forms, which take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ..evaluation import latencies
from .forms import build_forms, write_files
from .memory import peak_memory

__all__ = ['Timing', 'bench_table', 'measure_width']


@dataclass(frozen=True)
class Timing:
    """What one form of a width costs.

    Attributes:
        width: The width.
        form: One of `FORMS`.
        batch: Images at a time.
        milliseconds: Median time of a batch.
        images_per_second: Throughput.
        memory_mb: Growth of a fresh process that embeds such batches, in 10^6 bytes; None where it was not measured,
            and of the compiled form, which is mostly the compiler's.
    """

    width: float
    form: str
    batch: int
    milliseconds: float
    images_per_second: float
    memory_mb: float | None


def measure_width(
    dense: nn.Module,
    width: float,
    input_size: tuple[int, int, int],
    forms: Sequence[str],
    *,
    batches: Sequence[int] = (1,),
    ranges: Sequence[Tensor] = (),
    repeats: int = 25,
    memory: bool = True,
) -> list[Timing]:
    """Measures a width on the CPU, on as many threads as torch has.

    Args:
        dense: A dense model whose output is the embedding, on the CPU, in evaluation mode.
        width: Its width.
        input_size: (C, H, W) of an image.
        forms: Some of `FORMS`; they take turns, so their ratios hold on a busy machine, too.
        batches: Images at a time.
        ranges: Batches of images that tell int8 the ranges of activations; without any, noise does. Times are the
            same, embeddings are worth nothing then.
        repeats: Timed calls of each form.
        memory: Measure memory, too, each in a process of its own.

    Returns:
        A timing for each batch and form.
    """
    found = []
    with TemporaryDirectory() as folder:
        noise = torch.randn(4, *input_size, generator=torch.Generator().manual_seed(0))
        files = write_files(dense, Path(folder), input_size, forms, ranges or [noise])
        for batch in batches:
            images = noise[:1].repeat(batch, 1, 1, 1)
            seconds = latencies(build_forms(dense, files, forms), images, repeats=repeats)
            for form in forms:
                grown = None
                if memory and form != 'compiled':
                    grown = peak_memory(files.get(form, dense), tuple(images.shape), torch.get_num_threads())
                megabytes = None if grown is None else round(grown / 1e6, 2)
                time = seconds[form]
                found.append(Timing(width, form, batch, round(1000 * time, 4), round(batch / time, 1), megabytes))
    return found


def bench_table(timings: Sequence[Timing], base: str = 'onnx') -> list[dict[str, str]]:
    """Rows of text, one for each width and batch: milliseconds of every form, how often faster than `base`, memory."""
    forms = list(dict.fromkeys(timing.form for timing in timings))
    rows = []
    for width, batch in dict.fromkeys((timing.width, timing.batch) for timing in timings):
        of = {timing.form: timing for timing in timings if (timing.width, timing.batch) == (width, batch)}
        row = {'width': f'{width:g}', 'batch': str(batch)}
        for form in forms:
            ratio = f' ({of[base].milliseconds / of[form].milliseconds:.2f}x)' if base in of and form != base else ''
            row[f'{form} ms'] = f'{of[form].milliseconds:.2f}{ratio}'
        row['images/s'] = f'{max(timing.images_per_second for timing in of.values()):.0f}'
        for form in forms:
            if (memory := of[form].memory_mb) is not None:
                row[f'{form} MB'] = f'{memory:.0f}'
        rows.append(row)
    return rows
