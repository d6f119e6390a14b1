"""One width for ONNX Runtime, with its preprocessing stated beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
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
    'export_half',
    'export_onnx',
    'onnx_session',
    'quiet',
    'require_onnx',
    'run_onnx',
    'write_preprocessing',
]

PREPROCESSING = 'preprocessing.json'
_TOLERANCE = 1e-4  # of the largest value
_HALF_TOLERANCE = 1e-2
# Of sizes and places, in whole pixels, as torchvision and timm do it: a pixel more or less is another embedding.
_ROUNDING = {
    'orientation': 'the picture is turned as tag 0x0112 of its EXIF says (1 to 8) before anything else',
    'shorter_side': 'the other side is rounded down',
    'cover': 'both sides are divided by the smaller ratio of a side to its target, and rounded, halves to even',
    'fit_inside': 'both sides are divided by the larger ratio of a side to its target, and rounded, halves to even',
    'resize': 'to 8 bits per value, as Pillow does it; left out where the size is right',
    'crop': 'left and top are half of what is too much, rounded, halves to even',
    'pad': 'a side that is too short is padded first, by pad_with or else black; an odd pixel goes right or below',
}
_INPUT, _OUTPUT = 'images', 'embedding'


def export_onnx(
    model: nn.Module,
    path: str | Path,
    input_size: tuple[int, int, int],
    *,
    opset: int | None = None,
    dynamic_size: bool = False,
) -> Path:
    """Writes a dense model as ONNX with any number of images per batch, and compares it in ONNX Runtime.

    Args:
        model: A dense model whose output is the embedding, on the CPU.
        path: The file; it is there whole or not at all.
        input_size: (C, H, W) of an image.
        opset: Version of ONNX's operators; None takes the exporter's.
        dynamic_size: The file takes images of any height and width, not of this size alone.

    Returns:
        The file.

    Raises:
        ImportError: A package of the extra 'export' is missing.
        ValueError: ONNX Runtime gives another output (max|a-b| > 1e-4 max|b|), or the model is not to be had in such
            an opset or for any size.
    """
    onnx = require_onnx()[0]
    path = Path(path)
    model = model.eval()
    proto = _exported(model, input_size, opset, dynamic_size)
    _forget_where(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        onnx.save(proto, str(temporary))
        noise = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
        others = [noise.repeat(1, 1, 2, 1)[:, :, : input_size[1] + 32]] if dynamic_size else []
        for batch in (noise, noise[:1], *others):
            with torch.no_grad():
                error = relative_error(run_onnx(temporary, [batch]), model(batch))
            if error > _TOLERANCE:
                raise ValueError(
                    f'{str(path)!r}: ONNX Runtime gives another output, by {error:.1g} of the largest value'
                )
    return path


def export_half(source: str | Path, path: str | Path) -> Path:
    """Writes a model of `export_onnx` in half precision: half the size, same input and output (float32).

    It is for what computes in half precision, such as GPUs and WebGPU; on a CPU it is slower than float32.

    Args:
        source: File of `export_onnx`.
        path: The file; it is there whole or not at all.

    Returns:
        The file.

    Raises:
        ImportError: A package of the extra 'export' is missing.
        ValueError: ONNX Runtime gives another output (max|a-b| > 1e-2 max|b|), as where activations leave float16.
    """
    onnx = require_onnx()[0]
    path, proto = Path(path), onnx.load(str(source))
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [dim.dim_value or 64 for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    noise = torch.randn(2, *sizes, generator=torch.Generator().manual_seed(0))
    with replacing(path) as temporary, quiet():
        onnx.save(
            import_module('onnxruntime.transformers.float16').convert_float_to_float16(proto, keep_io_types=True),
            temporary,
        )
        error = relative_error(run_onnx(temporary, [noise]), run_onnx(source, [noise]))
        if error > _HALF_TOLERANCE:
            raise ValueError(f'{str(path)!r}: half precision gives another output, by {error:.1g} of the largest value')
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


def write_preprocessing(
    path: str | Path, checkpoint: Checkpoint, width: float, dim: int | None = None, *, dynamic_size: bool = False
) -> Path:
    """Writes a JSON that says how images become the input of an exported model, and what its output is.

    Args:
        path: The file; it is there whole or not at all.
        checkpoint: Where the model came from.
        width: Which width was exported.
        dim: Which embedding size was exported; None for the largest. The sizes up to it, of which the first numbers of
            an embedding are one, are stated where there are several.
        dynamic_size: The model takes any height and width; those of the steps are what the checkpoint names.

    Returns:
        The file.
    """
    path, (channels, height, side) = Path(path), checkpoint.preprocessing.input_size
    values: dict[str, Any] = {
        'input': {
            'name': _INPUT,
            'layout': 'NCHW',
            'dtype': 'float32',
            'shape': ['batch', channels, *(('height', 'width') if dynamic_size else (height, side))],
            'channels': {1: 'L', 3: 'RGB'}.get(channels, str(channels)),
        },
        'decoding': DECODING_RULES,
        'steps': checkpoint.preprocessing.steps(),
        'rounding': _ROUNDING,
        'output': {'name': _OUTPUT, 'dtype': 'float32', 'normalised': False, 'compare_by': 'cosine similarity'},
        'width': width,
        'compatibility': checkpoint.compatibility,
        'space': checkpoint.space,
    }
    if len(checkpoint.embed_dims) > 1:
        values['output']['sizes'] = [size for size in checkpoint.embed_dims if dim is None or size <= dim]
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


def _exported(model: nn.Module, input_size: tuple[int, int, int], opset: int | None, dynamic_size: bool) -> Any:
    """The exporter's model, as a protocol buffer."""
    names = {0: 'batch', **({2: 'height', 3: 'width'} if dynamic_size else {})}
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                model,
                (torch.zeros(2, *input_size),),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                opset_version=opset,
                dynamic_shapes=({axis: torch.export.Dim(name) for axis, name in names.items()},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        asked = ' for any height and width' * dynamic_size + (f' in opset {opset}' if opset is not None else '')
        if not asked:
            raise
        raise ValueError(
            f'the model cannot be exported{asked}; leave that out ({str(error).splitlines()[0]})'
        ) from error
    proto = program.model_proto
    written = next(entry.version for entry in proto.opset_import if not entry.domain)
    if opset is not None and written != opset:
        raise ValueError(
            f'opset must be one that the exporter can write, got {opset}, it wrote {written}; leave it out'
        )
    return proto


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
