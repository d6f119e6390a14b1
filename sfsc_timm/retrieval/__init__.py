"""Galleries on disk, and search in them: exact, or by a FAISS index."""

from .changes import Changes, find_changes, state_since, times_of
from .faiss import FaissIndex
from .gallery import Existing, Gallery, GalleryInfo, IncompatibleGalleryError
from .indexed import indexed
from .lance import Ann, LanceGallery, build_index
from .opening import open_gallery
from .preparation import Preparation
from .search import search
from .shards import FileState, file_state
from .sizes import query_size
from .store import Records, Store
from .transfer import convert, export, merge

__all__ = [
    'Ann',
    'Changes',
    'Existing',
    'FaissIndex',
    'FileState',
    'Gallery',
    'GalleryInfo',
    'IncompatibleGalleryError',
    'LanceGallery',
    'Preparation',
    'Records',
    'Store',
    'build_index',
    'convert',
    'export',
    'file_state',
    'find_changes',
    'indexed',
    'merge',
    'open_gallery',
    'query_size',
    'search',
    'state_since',
    'times_of',
]
