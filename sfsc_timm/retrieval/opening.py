"""Galleries by where they are: their kind is told by what lies there."""

from __future__ import annotations

from pathlib import Path

from .gallery import Gallery
from .lance import LanceGallery, is_table
from .manifest import MANIFEST
from .store import Store

__all__ = ['open_gallery']


def open_gallery(location: str | Path, root: str | None = None) -> Store:
    """Opens the gallery in a folder, or at an address such as `s3://bucket/gallery`.

    Args:
        location: Folder or address.
        root: Where the root of a Lance gallery lies on this machine; None takes the one that is noted.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, of a newer format, or has no root that could lie elsewhere.
    """
    if is_table(location) and not (isinstance(location, Path) and (location / MANIFEST).is_file()):
        return LanceGallery(location, root)
    if root is not None:
        raise ValueError(f'--root is for Lance galleries, whose paths are relative to one, got {str(location)!r}')
    return Gallery(location)
