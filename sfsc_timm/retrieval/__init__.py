"""Galleries on disk, and search in them: exact, or by a FAISS index."""

from .changes import Changes, find_changes, state_since, times_of
from .faiss import FaissIndex
from .gallery import Existing, Gallery, GalleryInfo, IncompatibleGalleryError
from .indexed import indexed
from .preparation import Preparation
from .search import search
from .shards import FileState, file_state
from .sizes import query_size

__all__ = [
    'Changes',
    'Existing',
    'FaissIndex',
    'FileState',
    'Gallery',
    'GalleryInfo',
    'IncompatibleGalleryError',
    'Preparation',
    'file_state',
    'find_changes',
    'indexed',
    'query_size',
    'search',
    'state_since',
    'times_of',
]
