"""Weightings by name, including those of TorchJD."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .pcgrad import PCGradWeighting, sum_weights

Weighting = Callable[[Tensor], Tensor]


def create_weighting(name: str, generator: torch.Generator, **options: Any) -> Weighting:
    """Creates a function from the Gramian `(m, m)` of m gradients to the weights `(m,)` of their sum.

    Args:
        name: 'pcgrad', 'sum', or the name of a TorchJD weighting, such as 'UPGrad', 'CAGrad' or 'MGDA' (needs the
            extra `torchjd`).
        generator: CPU generator of PCGrad's random orders. TorchJD's weightings draw from the global one.
        **options: Arguments of TorchJD's weighting, such as `c` of CAGrad.

    Returns:
        The weighting.

    Raises:
        ValueError: If the name is unknown, the options do not fit it, or what it needs is not installed.
    """
    if name in {'pcgrad', 'sum'}:
        if options:
            raise ValueError(f'weighting {name!r} must be given no options, got {options}; leave them out.')
        return PCGradWeighting(generator) if name == 'pcgrad' else sum_weights
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ValueError(
            f"weighting must be 'pcgrad' or 'sum', got {name!r}; for the names of TorchJD's weightings run pip install "
            "'sfsc-timm[torchjd]'."
        ) from error
    suffix = 'Weighting'
    known = sorted(key.removesuffix(suffix) for key in dir(aggregation) if key.endswith(suffix) and key != suffix)
    if name not in known:
        raise ValueError(f"weighting must be 'pcgrad', 'sum' or one of TorchJD's {', '.join(known)}, got {name!r}.")
    try:
        weighting: Weighting = getattr(aggregation, name + suffix)(**options)
    except (ImportError, TypeError) as error:
        raise ValueError(f"options must be those of TorchJD's weighting {name!r}, got {options}: {error}") from error
    return weighting


def resolve_weighting(weighting: str | Weighting, generator: torch.Generator) -> Weighting:
    """Accepts a weighting by name, as a function, or wrapped in one of TorchJD's aggregators.

    Args:
        weighting: Name for `create_weighting`, function of the Gramian, or TorchJD aggregator that works on Gramians.
        generator: CPU generator of PCGrad's random orders.

    Returns:
        The function of the Gramian.

    Raises:
        ValueError: If the name is unknown, or the object takes no Gramian.
    """
    if isinstance(weighting, str):
        return create_weighting(weighting, generator)
    inner: Weighting = getattr(weighting, 'gramian_weighting', weighting)
    # Any other aggregator takes the matrix of the gradients. Given a Gramian it would answer, and nobody would notice.
    if not callable(inner) or any(base.__name__ == 'Aggregator' for base in type(inner).__mro__):
        raise ValueError(
            'weighting must be a name, a function from a Gramian to weights, or a TorchJD aggregator that works on '
            f'Gramians, got {weighting!r}.'
        )
    return inner
