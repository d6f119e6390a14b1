"""The forms in which a width can run: PyTorch as it is and compiled, ONNX Runtime in float and in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..export import export_onnx, onnx_session, quantise_fastest

__all__ = ['FORMS', 'build_forms', 'write_files']

FORMS = ('eager', 'compiled', 'onnx', 'int8')

Embed = Callable[[Tensor], object]


def write_files(
    dense: nn.Module, folder: Path, input_size: tuple[int, int, int], forms: Sequence[str], ranges: Sequence[Tensor]
) -> dict[str, Path]:
    """Writes the files of those forms that have one.

    Args:
        dense: A dense model whose output is the embedding, on the CPU.
        folder: Where to.
        input_size: (C, H, W) of an image.
        forms: Some of `FORMS`.
        ranges: Batches of images that tell int8 the ranges of activations.

    Returns:
        The file of each form that has one.
    """
    files: dict[str, Path] = {}
    if {'onnx', 'int8'} & set(forms):
        files['onnx'] = export_onnx(dense, folder / 'model.onnx', input_size)
    if 'int8' in forms:
        files['int8'] = folder / 'model.int8.onnx'
        quantise_fastest(files['onnx'], files['int8'], ranges)
    return {form: files[form] for form in forms if form in files}


def build_forms(dense: nn.Module, files: dict[str, Path], forms: Sequence[str]) -> dict[str, Embed]:
    """The functions from images (B, C, H, W) to embeddings, by form; each compiles at its first call, if it does."""
    made: dict[str, Embed] = {}
    for form in forms:
        if form in files:
            made[form] = onnx_session(files[form])
        else:
            made[form] = torch.compile(dense, dynamic=False) if form == 'compiled' else dense
    return made
