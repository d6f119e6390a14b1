"""Slimmable timm models whose widths share one metric space (SFSC, CVPR 2023).

Importing this package registers its models: `timm.create_model('sfsc_resnet50')`.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .models import Slimmable, at_width, extract, get_width, get_widths, set_width

if TYPE_CHECKING:
    from .checkpoints.refit import refit
    from .hub import load_width, publish

__all__ = [
    'Slimmable',
    '__version__',
    'at_width',
    'extract',
    'get_width',
    'get_widths',
    'load_width',
    'publish',
    'refit',
    'set_width',
]


def __getattr__(name: str) -> Any:
    """What brings more imports with it comes when it is asked for."""
    if name == 'refit':
        from .checkpoints.refit import refit

        return refit
    if name in ('load_width', 'publish'):
        from . import hub

        return getattr(hub, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
