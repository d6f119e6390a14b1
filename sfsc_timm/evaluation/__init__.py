"""Cross-width retrieval: embeddings, exact metrics, the compatibility matrix, its cost and its pictures."""

from sfsc_timm.evaluation._contact_sheet import Match, plot_contact_sheet
from sfsc_timm.evaluation._cost import Cost, bytes_per_item, latency, model_cost
from sfsc_timm.evaluation._embed import SlimmableModel, embed
from sfsc_timm.evaluation._faiss import FaissIndex
from sfsc_timm.evaluation._gallery import Gallery, GalleryInfo, IncompatibleGalleryError
from sfsc_timm.evaluation._ground_truth import GroundTruth
from sfsc_timm.evaluation._matrix import CompatibilityMatrix, compatibility_matrix, paper_name
from sfsc_timm.evaluation._metrics import (
    QueryStatistics,
    RetrievalMetrics,
    query_statistics,
    retrieval_metrics,
)
from sfsc_timm.evaluation._plots import plot_accuracy_cost, plot_matrix, plot_training
from sfsc_timm.evaluation._rerank import KReciprocal
from sfsc_timm.evaluation._scores import Distance
from sfsc_timm.evaluation._search import search
from sfsc_timm.evaluation._tables import markdown_table, si_number, summary

__all__ = [
    'CompatibilityMatrix',
    'Cost',
    'Distance',
    'FaissIndex',
    'Gallery',
    'GalleryInfo',
    'GroundTruth',
    'IncompatibleGalleryError',
    'KReciprocal',
    'Match',
    'QueryStatistics',
    'RetrievalMetrics',
    'SlimmableModel',
    'bytes_per_item',
    'compatibility_matrix',
    'embed',
    'latency',
    'markdown_table',
    'model_cost',
    'paper_name',
    'plot_accuracy_cost',
    'plot_contact_sheet',
    'plot_matrix',
    'plot_training',
    'query_statistics',
    'retrieval_metrics',
    'search',
    'si_number',
    'summary',
]
