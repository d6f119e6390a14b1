"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ['find_device']


def find_device(name: str | None) -> torch.device:
    """The device of that name; cuda where there is one, or else cpu, for None.

    Raises:
        ValueError: It cannot be used here.
    """
    import torch

    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device {name!r} cannot be used: {str(error).splitlines()[0]}') from error
