"""Exported models with weights of 8 bits, and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from torch import Tensor

from .._files import replacing
from ..evaluation import GroundTruth, retrieval_metrics
from .onnx import quiet, require_onnx, run_onnx

__all__ = ['quantisation_loss', 'quantise_onnx']


def quantise_onnx(source: str | Path, path: str | Path) -> Path:
    """Writes the dynamic int8 form of an ONNX model: weights of 8 bits, activations quantised as they come.

    Args:
        source: File of `export_onnx`.
        path: The file to write; it is there whole or not at all.

    Returns:
        The file.

    Raises:
        ImportError: A package of the extra 'export' is missing.
    """
    runtime = require_onnx()[1]
    import_module('onnxruntime.quantization')
    quantization = runtime.quantization
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, quiet():
        # Unsigned, since ONNX Runtime's integer convolution on the CPU takes no signed weights.
        quantization.quantize_dynamic(str(source), str(temporary), weight_type=quantization.QuantType.QUInt8)
    return path


def quantisation_loss(
    exact: str | Path, quantised: str | Path, query: Iterable[Tensor], gallery: Iterable[Tensor], truth: GroundTruth
) -> dict[str, float]:
    """Measures what int8 costs in mAP.

    Args:
        exact: File of `export_onnx`.
        quantised: File of `quantise_onnx`.
        query: Batches of query images; read twice.
        gallery: Batches of gallery images; read twice.
        truth: Identities and cameras.

    Returns:
        mAP in percent of the exact model (`float`), of the quantised one (`int8`), of its queries in the exact model's
        gallery (`int8 query`), and the `loss`, exact minus quantised.
    """
    queries = {name: run_onnx(path, query) for name, path in (('float', exact), ('int8', quantised))}
    galleries = {name: run_onnx(path, gallery) for name, path in (('float', exact), ('int8', quantised))}
    found = {name: retrieval_metrics(queries[name], galleries[name], truth).mAP for name in queries}
    found['int8 query'] = retrieval_metrics(queries['int8'], galleries['float'], truth).mAP
    return {**found, 'loss': found['float'] - found['int8']}
