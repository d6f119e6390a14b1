"""A width outside of PyTorch: ONNX with its preprocessing, in float and in int8."""

from .int8 import quantisation_loss, quantise_onnx
from .onnx import export_onnx, onnx_session, run_onnx, write_preprocessing

__all__ = [
    'export_onnx',
    'onnx_session',
    'quantisation_loss',
    'quantise_onnx',
    'run_onnx',
    'write_preprocessing',
]
