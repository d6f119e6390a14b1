"""Cross-width evaluation: embeddings, exact retrieval metrics, the compatibility matrix, its cost and its pictures."""

from .._moved import moved
from .contact_sheet import Match, plot_contact_sheet
from .cost import Cost, bytes_per_item, latencies, latency, model_cost
from .embed import SlimmableModel, embed
from .evaluate import Embedder, evaluate
from .ground_truth import GroundTruth
from .matrix import CompatibilityMatrix, compatibility_matrix, paper_name
from .metrics import QueryStatistics, RetrievalMetrics, query_statistics, retrieval_metrics
from .plots import plot_accuracy_cost, plot_matrix, plot_training
from .rerank import KReciprocal
from .scores import Distance
from .sizes import by_size, size_cells
from .tables import markdown_table, si_number, size_table, summary, update_gain_table

__all__ = [
    'CompatibilityMatrix',
    'Cost',
    'Distance',
    'Embedder',
    'GroundTruth',
    'KReciprocal',
    'Match',
    'QueryStatistics',
    'RetrievalMetrics',
    'SlimmableModel',
    'by_size',
    'bytes_per_item',
    'compatibility_matrix',
    'embed',
    'evaluate',
    'latencies',
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
    'si_number',
    'size_cells',
    'size_table',
    'summary',
    'update_gain_table',
]

__getattr__ = moved(
    __name__,
    {'sfsc_timm.retrieval': ('FaissIndex', 'Gallery', 'GalleryInfo', 'IncompatibleGalleryError', 'search')},
)
