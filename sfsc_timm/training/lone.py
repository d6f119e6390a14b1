"""Networks that were trained one by one, evaluated as the widths of one model are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..models import Slimmable

__all__ = ['LoneNetworks']


class LoneNetworks:
    """Networks of their own behind the interface of one slimmable model: `at_width` chooses among them.

    Args:
        networks: The network of each width, each of the one width 1.0.

    Attributes:
        widths: The widths, ascending.
    """

    def __init__(self, networks: Mapping[float, Slimmable]) -> None:
        self.widths = tuple(sorted(networks))
        self._networks = networks
        self._width = self.widths[-1]

    @property
    def training(self) -> bool:
        """Whether they are in training mode."""
        return any(network.training for network in self._networks.values())

    @contextmanager
    def at_width(self, width: float) -> Iterator[Any]:
        """Chooses a network for the length of a `with` block."""
        before, self._width = self._width, width
        try:
            yield self
        finally:
            self._width = before

    @property
    def embed_dims(self) -> tuple[int, ...]:
        """All sizes to which their embeddings may be cut, ascending."""
        return self._networks[self._width].embed_dims

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to embeddings (B, D) by the network of the active width."""
        return self._networks[self._width].embed(x)

    def extract(self, width: float, *, dim: int | None = None) -> nn.Module:
        """The network of a width as a dense model, of the first `dim` numbers of the embedding or all."""
        return self._networks[width].extract(1.0, dim=dim)

    def train(self, mode: bool = True) -> LoneNetworks:
        """Switches all of them between training and evaluation mode."""
        for network in self._networks.values():
            network.train(mode)
        return self
