"""Embeddings as whole numbers of eight bits, with one scale of each dimension."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ['Scales']

_LARGEST = 127  # and its negative; -128 is not used, so that a code and its opposite are both there
_DEVIATIONS = 4.0
_POOLED = 16  # images for which the spread of all dimensions together counts in that of each


@dataclass(frozen=True)
class Scales:
    """What the codes of each dimension are multiplied by.

    Attributes:
        values: D numbers above 0.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(value) and value > 0 for value in self.values):
            raise ValueError(f'scales must be finite numbers above 0, got {list(self.values[:4])}...')

    @classmethod
    def fit(cls, embeddings: Tensor) -> Scales:
        """Scales whose range holds all of some embeddings, and four times their spread, for those that come later.

        Of few images the spread of a dimension is not known; then that of all dimensions counts with it.

        Args:
            embeddings: Shape `(N, D)`, N at least 1.
        """
        values = embeddings.detach().double()
        square, count = values.square().mean(0), len(values)
        spread = ((count * square + _POOLED * square.mean()) / (count + _POOLED)).sqrt()
        reach = torch.maximum(values.abs().amax(0), _DEVIATIONS * spread)
        reach[reach == 0] = 1.0  # nothing but zeros
        # As float32 has them, so that they are the same after writing and reading.
        return cls(tuple((reach / _LARGEST).float().clamp_(min=torch.finfo(torch.float32).tiny).tolist()))

    @property
    def tensor(self) -> Tensor:
        """The values `(D,)`, float32."""
        return torch.tensor(self.values)

    @property
    def digest(self) -> str:
        """SHA-256 of the values, in hexadecimal digits."""
        return hashlib.sha256(self.tensor.numpy().astype('<f4').tobytes()).hexdigest()

    def encode(self, embeddings: Tensor) -> tuple[Tensor, int]:
        """Nearest codes, and how many numbers lay beyond the range and became its end.

        Args:
            embeddings: Shape `(N, D)`.

        Returns:
            int8 `(N, D)`, in [-127, 127], and the count.
        """
        codes = (embeddings.float() / self.tensor).round_()
        beyond = int((codes.abs() > _LARGEST).sum())
        return codes.clamp_(-_LARGEST, _LARGEST).to(torch.int8), beyond

    def decode(self, codes: Tensor) -> Tensor:
        """Embeddings of codes, float32 `(N, D)`."""
        return codes * self.tensor

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {'values': list(self.values), 'sha256': self.digest}

    @classmethod
    def from_json(cls, content: Any, size: int) -> Scales:
        """Reads and checks what `to_json` gives.

        Args:
            content: Anything.
            size: D.

        Raises:
            ValueError: It is not what was written.
        """
        values = content.get('values') if isinstance(content, dict) else None
        if not isinstance(values, Sequence) or not all(type(value) in {int, float} for value in values):
            raise ValueError('they must be a list of numbers')
        if len(values) != size:
            raise ValueError(f'they must be {size} numbers, got {len(values)}')
        try:
            scales = cls(tuple(map(float, values)))
        except OverflowError as error:
            raise ValueError('they must be finite') from error
        if scales.digest != content.get('sha256'):
            raise ValueError('they are not what was written, by their sha256')
        return scales
