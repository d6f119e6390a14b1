"""One width in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ['Embed', 'open_model']

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From the input (1, C, H, W) to the embedding (D,)."""


def open_model(path: Path, preprocessing: Mapping[str, Any], size: int, *, flip: bool = False) -> Embed:
    """Opens an exported model on the CPU.

    Args:
        path: Its file.
        preprocessing: The preprocessing.json beside it, which names input and output.
        size: Numbers of an embedding to take, from the first on: those of the gallery's.
        flip: Average the embedding with that of the mirrored image.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    try:
        import onnxruntime as imported
    except ImportError:
        raise ImportError("the server's widths need onnxruntime: pip install 'sfsc-timm[demo]'") from None
    onnxruntime: Any = imported
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    source, target = preprocessing['input']['name'], preprocessing['output']['name']

    def embed(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if flip:
            images = np.concatenate([images, images[..., ::-1]])
        found: NDArray[np.float32] = session.run([target], {source: images})[0]
        return found.mean(0)[:size]

    return embed
