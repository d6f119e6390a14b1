"""One width for ONNX Runtime, with its preprocessing stated beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._files import replacing, write_json
from ..checkpoints.load import Checkpoint
from ..checkpoints.submodel import relative_error
from ..data import DECODING_RULES

__all__ = [
    'PREPROCESSING',
    'export_onnx',
    'onnx_session',
    'quiet',
    'require_onnx',
    'run_onnx',
    'write_preprocessing',
]

PREPROCESSING = 'preprocessing.json'
_TOLERANCE = 1e-4  # of the largest value
_INPUT, _OUTPUT = 'images', 'embedding'


def export_onnx(model: nn.Module, path: str | Path, input_size: tuple[int, int, int]) -> Path:
    """Writes a dense model as ONNX with any number of images per batch, and compares it in ONNX Runtime.

    Args:
        model: A dense model whose output is the embedding, on the CPU.
        path: The file; it is there whole or not at all.
        input_size: (C, H, W) of an image.

    Returns:
        The file.

    Raises:
        ImportError: A package of the extra 'export' is missing.
        ValueError: ONNX Runtime gives another output (max|a-b| > 1e-4 max|b|).
    """
    onnx = require_onnx()[0]
    path = Path(path)
    model = model.eval()
    with quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            model,
            (torch.zeros(2, *input_size),),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=({0: torch.export.Dim('batch')},),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    _forget_where(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        onnx.save(proto, str(temporary))
        noise = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
        for batch in (noise, noise[:1]):
            with torch.no_grad():
                error = relative_error(run_onnx(temporary, [batch]), model(batch))
            if error > _TOLERANCE:
                raise ValueError(
                    f'{str(path)!r}: ONNX Runtime gives another output, by {error:.1g} of the largest value'
                )
    return path


def run_onnx(path: str | Path, batches: Iterable[Tensor]) -> Tensor:
    """Embeds batches of images (B, C, H, W) by ONNX Runtime.

    Returns:
        Embeddings (N, D), float32.
    """
    embed = onnx_session(path)
    return torch.cat([embed(batch) for batch in batches])


def onnx_session(path: str | Path) -> Callable[[Tensor], Tensor]:
    """Opens a model in ONNX Runtime on the CPU, on as many threads as torch.

    Returns:
        A function from images (B, C, H, W) to embeddings (B, D), float32.
    """
    runtime = require_onnx()[1]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run([_OUTPUT], {_INPUT: images.float().cpu().numpy()})[0])


def write_preprocessing(path: str | Path, checkpoint: Checkpoint, width: float) -> Path:
    """Writes a JSON that says how images become the input of an exported model, and what its output is.

    Args:
        path: The file; it is there whole or not at all.
        checkpoint: Where the model came from.
        width: Which width was exported.

    Returns:
        The file.
    """
    path, (channels, height, side) = Path(path), checkpoint.preprocessing.input_size
    values: dict[str, Any] = {
        'input': {
            'name': _INPUT,
            'layout': 'NCHW',
            'dtype': 'float32',
            'shape': ['batch', channels, height, side],
            'channels': {1: 'L', 3: 'RGB'}.get(channels, str(channels)),
        },
        'decoding': DECODING_RULES,
        'steps': checkpoint.preprocessing.steps(),
        'output': {'name': _OUTPUT, 'dtype': 'float32', 'normalised': False, 'compare_by': 'cosine similarity'},
        'width': width,
        'compatibility': checkpoint.compatibility,
        'space': checkpoint.space,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values)
    return path


def require_onnx() -> tuple[Any, Any]:
    """The packages onnx and onnxruntime.

    Raises:
        ImportError: One of the extra 'export' is missing; the message names it.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  the exporter's
    except ImportError as error:
        raise ImportError(f"exporting to ONNX needs {error.name}: pip install 'sfsc-timm[export]'") from None
    return onnx, onnxruntime


def _forget_where(proto: Any) -> None:
    """Drops the stack traces that the exporter records: they name folders of this machine."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ''
    # Shapes in between go too: they can be inferred, and quantisation, which turns weights, would contradict them.
    del proto.graph.value_info[:]
    for part in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del part.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]


class quiet:  # noqa: N801  used as a function
    """Keeps what the exporter says of its own workings off the terminal."""

    def __enter__(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter('ignore')
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self._level)
        self._caught.__exit__(*error)  # type: ignore[arg-type]
