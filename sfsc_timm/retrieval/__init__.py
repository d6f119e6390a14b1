"""Galleries on disk, and search in them: exact, or by a FAISS index."""

from .faiss import FaissIndex
from .gallery import Gallery, GalleryInfo, IncompatibleGalleryError
from .search import search

__all__ = ['FaissIndex', 'Gallery', 'GalleryInfo', 'IncompatibleGalleryError', 'search']
