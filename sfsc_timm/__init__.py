"""Slimmable timm models whose widths share one metric space (SFSC, CVPR 2023).

Importing this package registers its models: `timm.create_model('sfsc_resnet50')`.
"""

from ._version import __version__
from .models import Slimmable, at_width, extract, get_width, get_widths, set_width

__all__ = ['Slimmable', '__version__', 'at_width', 'extract', 'get_width', 'get_widths', 'set_width']
