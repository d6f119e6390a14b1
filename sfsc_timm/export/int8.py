"""Exported models in 8 bits: ranges from images, operators that stay in floating point, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from .._files import replacing
from ..evaluation import GroundTruth, latencies, retrieval_metrics
from .onnx import onnx_session, quiet, require_onnx, run_onnx

__all__ = ['first_images', 'float_candidates', 'quantisation_loss', 'quantise_fastest', 'quantise_onnx']

_QUANTISED = ('Conv', 'MatMul', 'Gemm', 'Relu', 'Clip', 'Add', 'MaxPool', 'AveragePool')
_PRODUCTS = ('Conv', 'MatMul', 'Gemm')
_MARGIN = 0.98  # another choice must be this much faster, or the one with more operators in int8 stays


def quantise_onnx(
    source: str | Path, path: str | Path, images: Iterable[Tensor], float_nodes: Sequence[str] = ()
) -> Path:
    """Writes an ONNX model in static int8: QDQ, weights for each channel, ranges of activations from images.

    Activations are unsigned and weights signed, which is the pair that ONNX Runtime has fast kernels for on x86 (signed
    activations are slower than floating point there). Weights use 7 of their 8 bits: processors with AVX2 and without
    VNNI add pairs of products in 16 bits, which 8 would overflow, silently.

    Args:
        source: File of `export_onnx`, whose batch normalisation is folded into the convolutions.
        path: The file to write; it is there whole or not at all.
        images: Batches (B, C, H, W) as the model takes them, of the kind that it will see; a few hundred will do.
        float_nodes: Names of operators that stay in floating point, see `float_candidates`.

    Returns:
        The file.

    Raises:
        ImportError: A package of the extra 'export' is missing.
        ValueError: There are no images.
    """
    onnx, runtime = require_onnx()
    import_module('onnxruntime.quantization')
    tools = runtime.quantization
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = onnx.load(str(source)).graph
    with replacing(path) as temporary, quiet():
        try:
            tools.quantize_static(
                str(source),
                str(temporary),
                _reader(tools, graph.input[0].name, images),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
                nodes_to_exclude=[*float_nodes, *_biases(graph)],
                op_types_to_quantize=list(_QUANTISED),
                calibrate_method=tools.CalibrationMethod.MinMax,
            )
        except ValueError as error:
            if 'No data is collected' in str(error):
                raise ValueError(
                    'images must hold at least one batch, got none; give some to find the ranges'
                ) from None
            raise
    return path


def float_candidates(source: str | Path) -> dict[str, tuple[str, ...]]:
    """Choices of operators to leave in floating point, by name, those with the most in int8 first.

    The last layer makes the embedding: in floating point it costs little, and what it rounds is lost in every search.
    The first ones see three channels, which integer kernels are slow on.

    Args:
        source: File of `export_onnx`.

    Returns:
        Names of operators, for `quantise_onnx`.
    """
    nodes = require_onnx()[0].load(str(source)).graph.node
    names = [node.name for node in nodes]
    products = [place for place, node in enumerate(nodes) if node.op_type in _PRODUCTS]
    head = (names[products[-1]],)
    # Up to but without the next product: the activation behind the first layer is a part of it.
    starts = {f'first {count} and last layer': products[count] for count in (1, 2, 4) if count < len(products) - 1}
    return {'last layer': head, **{name: (*names[:end], *head) for name, end in starts.items()}}


def quantise_fastest(
    source: str | Path, path: str | Path, images: Sequence[Tensor], repeats: int = 25
) -> dict[str, Any]:
    """Quantises with each of the `float_candidates`, and keeps the fastest on this machine for one image.

    Args:
        source: File of `export_onnx`.
        path: The file to write.
        images: As for `quantise_onnx`.
        repeats: Timed calls of each.

    Returns:
        `float_layers`, the choice, and `milliseconds` of every choice and of the float model, which took turns.
    """
    if not images:
        raise ValueError('images must hold at least one batch, got none; give some to find the ranges')
    choices = float_candidates(source)
    with TemporaryDirectory() as folder:
        files = {name: Path(folder, f'{place}.onnx') for place, name in enumerate(choices)}
        for name, nodes in choices.items():  # one batch is enough for the time
            quantise_onnx(source, files[name], images[:1], nodes)
        sessions = {name: onnx_session(file) for name, file in {'float': Path(source), **files}.items()}
        seconds = latencies(sessions, images[0][:1], repeats=repeats)
    best = fastest({name: seconds[name] for name in choices})
    quantise_onnx(source, path, images, choices[best])
    return {'float_layers': best, 'milliseconds': {name: round(1000 * value, 4) for name, value in seconds.items()}}


def fastest(seconds: Mapping[str, float]) -> str:
    """The first name that no other is clearly faster than, the rest of the noise aside."""
    least = min(seconds.values())
    return next(name for name, value in seconds.items() if value * _MARGIN <= least)


def quantisation_loss(
    exact: str | Path,
    quantised: str | Path,
    query: Iterable[Tensor],
    gallery: Iterable[Tensor],
    truth: GroundTruth,
    phi: Tensor | None = None,
) -> dict[str, float]:
    """Measures what int8 costs in mAP.

    Args:
        exact: File of `export_onnx`.
        quantised: File of `quantise_onnx`.
        query: Batches of query images; read twice.
        gallery: Batches of gallery images; read twice. The same object as `query` is read for both.
        truth: Identities and cameras.
        phi: The gallery as another model, such as the widest width, embedded it in floating point, (N, D).

    Returns:
        mAP in percent of the exact model (`float`), of the quantised one (`int8`), of its queries in the exact model's
        gallery (`int8 query`), and the `loss`, exact minus quantised; with phi also of both models' queries in that
        gallery (`float in φ`, `int8 in φ`).
    """
    queries = {name: run_onnx(path, query) for name, path in (('float', exact), ('int8', quantised))}
    galleries = queries
    if gallery is not query:
        galleries = {name: run_onnx(path, gallery) for name, path in (('float', exact), ('int8', quantised))}
    found = {name: retrieval_metrics(queries[name], galleries[name], truth).mAP for name in queries}
    found['int8 query'] = retrieval_metrics(queries['int8'], galleries['float'], truth).mAP
    if phi is not None:
        found.update({f'{name} in φ': retrieval_metrics(queries[name], phi, truth).mAP for name in queries})
    return {**found, 'loss': found['float'] - found['int8']}


def first_images(batches: Iterable[Tensor], count: int) -> list[Tensor]:
    """The first images of some batches, in batches of 16."""
    found = list(islice((image for batch in batches for image in batch), count))
    return [torch.stack(found[start : start + 16]) for start in range(0, len(found), 16)]


def _reader(tools: Any, name: str, images: Iterable[Tensor]) -> Any:
    """The images as ONNX Runtime's tools read them."""

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._left, None)
            return None if batch is None else {name: batch.float().cpu().numpy()}

    return Reader()


def _biases(graph: Any) -> list[str]:
    """Additions of a constant: in a transformer's layers they are faster where the product before them is float."""
    constant = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == 'Add' and constant & set(node.input)]
