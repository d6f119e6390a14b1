"""The zoo: timm models whose widths share weights and a metric space. Importing it registers them with timm."""

from ._extract import extract
from ._slimmable import Slimmable
from ._widths import DEFAULT_WIDTHS, at_width, check_widths, get_width, get_widths, scale_channels, set_width
from .slim_convnext import SlimmableConvNeXt
from .slim_efficientnet import SlimmableEfficientNet
from .slim_resnet import SlimmableResNet

__all__ = [
    'DEFAULT_WIDTHS',
    'Slimmable',
    'SlimmableConvNeXt',
    'SlimmableEfficientNet',
    'SlimmableResNet',
    'at_width',
    'check_widths',
    'extract',
    'get_width',
    'get_widths',
    'scale_channels',
    'set_width',
]
