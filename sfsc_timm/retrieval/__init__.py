"""Galleries on disk, and search in them: exact, in two steps, or by an index."""

from .changes import Changes, find_changes, state_since, times_of
from .faiss import FaissIndex
from .funnel import Shortlist, recall_of
from .fusing import Fusion, best_of, check_fusion, mean_of
from .gallery import Existing, Gallery, GalleryInfo, IncompatibleGalleryError
from .indexed import indexed
from .lance import Ann, LanceGallery, build_index
from .opening import open_gallery
from .preparation import Preparation
from .scales import Scales
from .search import search
from .shards import FileState, file_state
from .sizes import query_size
from .store import Records, Store
from .strangers import Threshold, known_items, strangers_scores, threshold_of
from .transfer import convert, export, merge

__all__ = [
    'Ann',
    'Changes',
    'Existing',
    'FaissIndex',
    'FileState',
    'Fusion',
    'Gallery',
    'GalleryInfo',
    'IncompatibleGalleryError',
    'LanceGallery',
    'Preparation',
    'Records',
    'Scales',
    'Shortlist',
    'Store',
    'Threshold',
    'best_of',
    'build_index',
    'check_fusion',
    'convert',
    'export',
    'file_state',
    'find_changes',
    'indexed',
    'known_items',
    'mean_of',
    'merge',
    'open_gallery',
    'query_size',
    'recall_of',
    'search',
    'state_since',
    'strangers_scores',
    'threshold_of',
    'times_of',
]
