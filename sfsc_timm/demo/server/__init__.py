"""The demo's server: NumPy, Pillow, ONNX Runtime and Python's own http.server, without PyTorch and this package.

These files import each other and nothing else of `sfsc_timm`, so that a Space runs copies of them.
"""

from .nearest import normalised
from .pictures import shown
from .refusal import Refusal
from .routes import Answer, Routes
from .serving import DemoServer
from .site import CONFIG, EMBEDDINGS, ITEMS, Site, read_site

__all__ = [
    'CONFIG', 'EMBEDDINGS', 'ITEMS', 'Answer', 'DemoServer', 'Refusal', 'Routes', 'Site', 'normalised', 'read_site',
    'shown',
]  # fmt: skip
