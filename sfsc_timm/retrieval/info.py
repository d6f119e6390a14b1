"""What a gallery was embedded by, and which queries may search it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ['CODES', 'DTYPES', 'GalleryInfo', 'IncompatibleGalleryError']

DTYPES = {'float32': torch.float32, 'float16': torch.float16}
# Whole numbers with a scale of each dimension; and the same with a bit of each dimension beside them.
CODES = ('int8', 'binary')


class IncompatibleGalleryError(ValueError):
    """Query and gallery embeddings come from different metric spaces: their similarities mean nothing."""


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery was embedded by.

    Attributes:
        model: Name of the model, for people.
        width: Width at which the gallery was embedded.
        embed_dim: Numbers per embedding.
        compatibility_id: Identifies the checkpoint, all weights of all widths.
        dtype: Stored type: 'float32', 'float16' for half the size, 'int8' for a quarter, or 'binary', which is int8
            with bits beside it: a thirty-second in memory.
        space_id: Identifies the metric space; '' in a gallery of before there were such ids.
        weights_digest: Identifies the weights of the width that embedded; '' where that is not known.
    """

    model: str
    width: float
    embed_dim: int
    compatibility_id: str
    dtype: str = 'float32'
    space_id: str = ''
    weights_digest: str = ''

    def __post_init__(self) -> None:
        for name in ('model', 'compatibility_id', 'space_id', 'weights_digest'):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f'{name} must be text, got {getattr(self, name)!r}.')
        if not isinstance(self.dtype, str) or self.dtype not in (*DTYPES, *CODES):
            raise ValueError(f'dtype must be one of {[*DTYPES, *CODES]}, got {self.dtype!r}.')
        if not _is_number(self.width, int, float) or not 0 < self.width <= 1:
            raise ValueError(f'width must be in (0, 1], got {self.width!r}.')
        if not _is_number(self.embed_dim, int) or self.embed_dim < 1:
            raise ValueError(f'embed_dim must be at least 1, got {self.embed_dim!r}.')

    @property
    def float_type(self) -> torch.dtype:
        """The type in which the gallery takes and gives embeddings: float32 where it stores codes."""
        return DTYPES.get(self.dtype, torch.float32)

    def shares_space(self, compatibility_id: str, space_id: str = '') -> bool:
        """Whether embeddings of a checkpoint can be compared with these.

        They can if both have the same space id, which stays when another width is refitted or added; or the same
        compatibility id, which means the very same weights. The second is what a gallery of before there were space
        ids is searched by, and what a checkpoint of before searches by.
        """
        return (bool(space_id) and space_id == self.space_id) or compatibility_id == self.compatibility_id

    def embeds_like(self, other: GalleryInfo) -> bool:
        """Whether embeddings made by `other` belong into the same gallery.

        Beside metric space, width and form, the digests of the width's weights must be equal where both are known: a
        width that was fitted again is another embedder, though of the same space. The model's name is for people.
        """
        known = bool(self.weights_digest and other.weights_digest)
        return (
            (self.width, self.embed_dim, self.dtype) == (other.width, other.embed_dim, other.dtype)
            and self.shares_space(other.compatibility_id, other.space_id)
            and (
                self.weights_digest == other.weights_digest
                if known
                else self.compatibility_id == other.compatibility_id
            )
        )


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
