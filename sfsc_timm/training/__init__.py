"""Training loops around the tasks."""

from ._fit import Fit, fit

__all__ = ['Fit', 'fit']
