"""Recipes in timm's task interface."""

from ..slim import slice_layout
from .sfsc import SFSCTask

__all__ = ['SFSCTask', 'slice_layout']
