"""Checkpoints in timm's Hub and local-dir layout, whole or one width each."""

from ._folders import SECTION, save_width, save_widths

__all__ = ['SECTION', 'save_width', 'save_widths']
