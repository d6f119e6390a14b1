"""Queries and galleries whose embeddings differ in size, though they are of one metric space."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ['query_size', 'words_on_sizes']


def query_size(gallery: int, embed_dims: Sequence[int], whole: int) -> int:
    """To how many of its first numbers a query's embedding is cut before it searches a gallery.

    Args:
        gallery: Numbers of the gallery's embeddings.
        embed_dims: Sizes to which the query's model allows its embeddings to be cut.
        whole: Numbers of the query's embedding.

    Returns:
        The gallery's size where it is one of the model's; all numbers where not, which the gallery refuses.
    """
    return gallery if gallery in embed_dims and gallery <= whole else whole


def words_on_sizes(query: int, gallery: int, is_one_space: bool) -> str:
    """Why a query of another size cannot search a gallery, and what to do.

    Args:
        query: Numbers of the query's embedding.
        gallery: Numbers of the gallery's embeddings.
        is_one_space: Whether both are of one metric space all the same.
    """
    if not is_one_space:
        return 'they are not of one metric space.'
    if query < gallery:
        return (
            'of one metric space, but nothing can be compared with the numbers that the queries lack. Embed them by a '
            f'checkpoint of {gallery} numbers, or index the gallery again with --dim {query}.'
        )
    return (
        'of one metric space, but the checkpoint does not say that the first of its numbers are an embedding of their '
        'own. Load it with its embed_dims.'
    )
