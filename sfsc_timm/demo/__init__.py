"""A page whose browser embeds pictures at a small width, and a server that searches a gallery of the full one."""

from .galleries import glyph_gallery, prepared_as, read_matrix
from .glyphs import draw_glyphs
from .making import PAGE, make_examples, make_site
from .runtime import RUNTIME_VERSION, cache_folder, find_runtime
from .space import write_space

__all__ = [
    'PAGE', 'RUNTIME_VERSION', 'cache_folder', 'draw_glyphs', 'find_runtime', 'glyph_gallery', 'make_examples',
    'make_site', 'prepared_as', 'read_matrix', 'write_space',
]  # fmt: skip
