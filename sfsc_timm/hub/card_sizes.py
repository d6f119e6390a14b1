"""What a model card says of embedding sizes."""

from __future__ import annotations

from ..evaluation import by_size, bytes_per_item, size_table
from .card_content import CardContent

__all__ = ['sizes_section']


def sizes_section(content: CardContent) -> str:
    """What of an embedding may be stored; empty where there is one size."""
    if len(content.embed_dims) < 2:
        return ''
    *smaller, whole = content.embed_dims
    text = (
        f'## Embedding sizes\n\nThe first {", ".join(map(str, smaller[:-1]))}{" or " if smaller[:-1] else ""}'
        f'{smaller[-1]} of the {whole} numbers are an embedding of their own, at every width: store '
        f'`embedding[:, :{smaller[0]}]`, {bytes_per_item(smaller[0])} bytes of an item instead of '
        f'{bytes_per_item(whole)}, and cut queries to as many. `model.embed(images, dim={smaller[0]})` and '
        f'`model.extract({content.widths[0].width:g}, dim={smaller[0]})` of the whole model make no more; '
        '`sfsc-timm index --dim` makes such a gallery, for which `sfsc-timm search` cuts its queries.'
    )
    if content.matrix is None or not by_size(content.matrix):
        return text
    return (
        f'{text}\n\nmAP in percent of each width (rows) by size and bytes of a gallery item (columns): in a gallery of '
        f"its own / in the biggest width's.\n\n{size_table(content.matrix)}"
    )
