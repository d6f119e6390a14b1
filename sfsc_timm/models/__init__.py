"""The zoo: timm models whose widths share weights and a metric space. Importing it registers them with timm."""

from ._extract import extract
from ._heads import CosineLinear, classify_fixed, create_neck, fold_neck
from ._lite_weights import fetch_lite_weights
from ._slimmable import Slimmable
from ._sorting import sort_channels
from ._start import start_from, start_from_folded
from ._statistics import estimate_statistics
from ._widths import DEFAULT_WIDTHS, at_width, check_widths, get_width, get_widths, scale_channels, set_width
from .slim_convnext import SlimmableConvNeXt
from .slim_efficientnet import SlimmableEfficientNet
from .slim_efficientnet_lite import SlimmableEfficientNetLite
from .slim_eva import SlimmableEva
from .slim_mobilenet import SlimmableMobileNet
from .slim_resnet import SlimmableResNet
from .slim_vit import SlimmableViT

__all__ = [
    'DEFAULT_WIDTHS',
    'CosineLinear',
    'Slimmable',
    'SlimmableConvNeXt',
    'SlimmableEfficientNet',
    'SlimmableEfficientNetLite',
    'SlimmableEva',
    'SlimmableMobileNet',
    'SlimmableResNet',
    'SlimmableViT',
    'at_width',
    'check_widths',
    'classify_fixed',
    'create_neck',
    'estimate_statistics',
    'extract',
    'fetch_lite_weights',
    'fold_neck',
    'get_width',
    'get_widths',
    'scale_channels',
    'set_width',
    'sort_channels',
    'start_from',
    'start_from_folded',
]
