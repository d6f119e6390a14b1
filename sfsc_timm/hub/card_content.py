"""What a model card is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoints.measurements import WidthCost
from ..data import Preprocessing
from ..evaluation import CompatibilityMatrix

__all__ = ['About', 'CardContent', 'PublishedWidth']


@dataclass(frozen=True)
class About:
    """What a card says that cannot be measured; whatever is None is left out or called unknown.

    Attributes:
        license: Licence of the weights, an identifier of the Hub's such as 'apache-2.0'.
        data: Name of the training data.
        data_license: Terms of the training data.
        command: Command that trained the model.
        note: What the accuracy is of, if it is not this checkpoint's own.
        use: Intended use, in a sentence or two.
    """

    license: str | None = None
    data: str | None = None
    data_license: str | None = None
    command: str | None = None
    note: str | None = None
    use: str | None = None


@dataclass(frozen=True)
class PublishedWidth:
    """One branch of the repository.

    Attributes:
        width: The width.
        architecture: timm's name of the dense model.
        plain: Whether timm alone can load it.
        cost: What it costs.
        embedding: The layer that makes the embedding.
        size: Bytes of the weights file.
        onnx: Whether model.onnx is there too.
    """

    width: float
    architecture: str
    plain: bool
    cost: WidthCost
    embedding: str
    size: int
    onnx: bool = False


@dataclass(frozen=True, eq=False)
class CardContent:
    """Everything a card is written from.

    Attributes:
        repo: 'user/name'.
        architecture: Name of the slimmable model.
        compatibility: Id of the metric space.
        embed_dim: Numbers per embedding.
        preprocessing: How an image becomes the input.
        widths: The branches, ascending.
        about: What cannot be measured.
        arguments: Settings of the training run.
        matrix: Accuracy, if measured.
        of_this_model: Whether that was measured on this checkpoint.
        embed_dims: All sizes to which an embedding may be cut, ascending.
    """

    repo: str
    architecture: str
    compatibility: str
    embed_dim: int
    preprocessing: Preprocessing
    widths: tuple[PublishedWidth, ...]
    about: About
    arguments: Mapping[str, Any]
    matrix: CompatibilityMatrix | None
    of_this_model: bool
    embed_dims: tuple[int, ...] = ()

    @property
    def data(self) -> str | None:
        """Name of the training data."""
        named = self.about.data or self.arguments.get('data') or self.arguments.get('dataset')
        if named is None and self.matrix is not None:
            named = self.matrix.info.get('data')
        return None if named is None else str(named)
