"""A width outside of PyTorch: ONNX with its preprocessing, in float, in half precision and in int8."""

from .int8 import first_images, float_candidates, quantisation_loss, quantise_fastest, quantise_onnx
from .onnx import export_half, export_onnx, onnx_session, run_onnx, write_preprocessing

__all__ = [
    'export_half',
    'export_onnx',
    'first_images',
    'float_candidates',
    'onnx_session',
    'quantisation_loss',
    'quantise_fastest',
    'quantise_onnx',
    'run_onnx',
    'write_preprocessing',
]
