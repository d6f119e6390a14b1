"""The Lance store: a gallery as a table of LanceDB, in a folder or at `s3://...`."""

from .build import build_index, kind_for
from .gallery import LanceGallery
from .index import ANN_KINDS, Ann, AnnKind
from .roots import common_root
from .table import is_table

__all__ = ['ANN_KINDS', 'Ann', 'AnnKind', 'LanceGallery', 'build_index', 'common_root', 'is_table', 'kind_for']
