"""Dense models behind the interface of a slimmable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ..models import Slimmable
from ..models._heads import cut_outputs
from ..models._sizes import check_size, leading

__all__ = ['DenseWidths']


class DenseWidths(nn.Module):
    """Sub-models that were saved one by one, switched by width as a `Slimmable` is.

    Args:
        models: A model of each width whose output is the embedding; at least one.
        embed_dims: All sizes to which the embedding may be cut, ascending; none where that is not known.

    Attributes:
        widths: The widths, ascending.
        width: The active one; the widest to begin with.
        embed_dims: As given.
    """

    def __init__(self, models: Mapping[float, nn.Module], embed_dims: Sequence[int] = ()) -> None:
        super().__init__()
        self.embed_dims = tuple(embed_dims)
        self.widths = tuple(sorted(models))
        self.width = self.widths[-1]
        self.models = nn.ModuleList(models[width] for width in self.widths)

    def set_width(self, width: float) -> None:
        """Makes `width` the active one.

        Raises:
            ValueError: It is not there; the message lists those that are.
        """
        if width not in self.widths:
            raise ValueError(f'width must be one of {self.widths}, got {width!r}; load the folder of that width too.')
        self.width = width

    @contextmanager
    def at_width(self, width: float) -> Iterator[Any]:
        """Sets a width for the length of a `with` block, then goes back."""
        before = self.width
        self.set_width(width)
        try:
            yield self
        finally:
            self.width = before

    def extract(self, width: float | None = None, *, dim: int | None = None) -> nn.Module:
        """The dense model of a width (None: the active one) itself, no copy; with `dim` a copy of a smaller embedding.

        Args:
            width: Which width.
            dim: One of `embed_dims`: the copy's last layer makes the first `dim` numbers alone.

        Raises:
            ValueError: There is no such size.
        """
        model: Any = self.models[self.widths.index(self.width if width is None else width)]
        if dim is None:
            found: nn.Module = model
            return found
        check_size(self.embed_dims, dim)
        if isinstance(model, Slimmable):
            return model.extract(dim=dim)
        small: Any = deepcopy(model)
        layer = small.get_classifier()
        name = next(name for name, module in small.named_modules() if module is layer)
        small.set_submodule(name, cut_outputs(layer, dim))
        small.num_classes = dim
        return small

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the feature map of the active width."""
        features: Tensor = self.extract().forward_features(x)  # type: ignore[operator]
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # noqa: ARG002  there are no logits
        """Feature map to the embedding (B, D)."""
        embedding: Tensor = self.extract().forward_head(x)  # type: ignore[operator]
        return embedding

    def embed(self, x: Tensor, dim: int | None = None) -> Tensor:
        """Images (B, C, H, W) to embeddings (B, D), or their first `dim` numbers, one of `embed_dims`."""
        return leading(self.forward_head(self.forward_features(x)), self.embed_dims, dim)

    def forward(self, x: Tensor) -> Tensor:
        """As `embed`: there are no logits."""
        return self.embed(x)
