"""How much memory a form of a model takes, in a process of its own."""

from __future__ import annotations

import io
import multiprocessing
from pathlib import Path

import torch
from torch import nn

__all__ = ['peak_memory']

_STATUS = Path('/proc/self/status')


def peak_memory(model: nn.Module | Path, size: tuple[int, ...], threads: int) -> int | None:
    """Bytes by which a fresh process grows at most while it loads a model and embeds two batches.

    Args:
        model: A module on the CPU, or a file for ONNX Runtime.
        size: Shape of a batch (B, C, H, W).
        threads: Threads that it runs on.

    Returns:
        The bytes, beyond the imported libraries; None where the system does not tell.
    """
    if not _STATUS.is_file():
        return None
    content: bytes | Path
    if isinstance(model, Path):
        content = model
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        content = buffer.getvalue()
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_grown, (content, size, threads))


def _grown(content: bytes | Path, size: tuple[int, ...], threads: int) -> int:
    """The growth of this process."""
    from ..export import onnx_session

    torch.set_num_threads(threads)
    images = torch.zeros(size)
    if isinstance(content, Path):
        import onnxruntime  # noqa: F401  libraries do not count
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = _resident('VmRSS')
    if isinstance(content, Path):
        embed = onnx_session(content)
    else:
        embed = torch.load(io.BytesIO(content), weights_only=False)  # of peak_memory, a moment ago
    with torch.inference_mode():
        for _ in range(2):
            embed(images)
    return max(0, _resident('VmHWM') - before)


def _resident(key: str) -> int:
    """Bytes of this process: 'VmRSS' now, 'VmHWM' at most so far."""
    lines = _STATUS.read_text(encoding='ascii').splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])
