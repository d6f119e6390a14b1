"""Dense models behind the interface of a slimmable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ['DenseWidths']


class DenseWidths(nn.Module):
    """Sub-models that were saved one by one, switched by width as a `Slimmable` is.

    Args:
        models: A model of each width whose output is the embedding; at least one.

    Attributes:
        widths: The widths, ascending.
        width: The active one; the widest to begin with.
    """

    def __init__(self, models: Mapping[float, nn.Module]) -> None:
        super().__init__()
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

    def extract(self, width: float | None = None) -> nn.Module:
        """The dense model of a width (None: the active one) itself, no copy."""
        model: nn.Module = self.models[self.widths.index(self.width if width is None else width)]
        return model

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the feature map of the active width."""
        features: Tensor = self.extract().forward_features(x)  # type: ignore[operator]
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # noqa: ARG002  there are no logits
        """Feature map to the embedding (B, D)."""
        embedding: Tensor = self.extract().forward_head(x)  # type: ignore[operator]
        return embedding

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to embeddings (B, D)."""
        return self.forward_head(self.forward_features(x))

    def forward(self, x: Tensor) -> Tensor:
        """As `embed`: there are no logits."""
        return self.embed(x)
