"""Digamma and Kullback-Leibler terms of Dirichlet distributions, from the logarithms of their parameters.

Exponential evidence reaches alpha = 1 + exp(1e4), which no floating-point number holds; its logarithm is harmless. So
everything here takes log(alpha) >= 0, and all gradients stay of the order of the number of classes.
"""

import math

import torch
from torch import Tensor

# Beyond exp(40), psi(alpha) = log(alpha) - 1 / (2 alpha) - ... equals log(alpha) in float64.
_DIGAMMA_IS_LOG = 40.0
# From here on five terms of the asymptotic series of `_entropy_term` are exact to 1e-11.
_SERIES_FROM = 32.0


def digamma_less_log(log_alpha: Tensor) -> Tensor:
    """Computes psi(alpha) - log(alpha) elementwise, which is in (-0.58, 0), for log(alpha) >= 0 of any size."""
    bounded = log_alpha.clamp(max=_DIGAMMA_IS_LOG)
    return torch.digamma(bounded.exp()) - bounded


def log_total(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Computes log(S) = log(sum of alpha) in two parts, for the sake of what is smaller than the rounding of log(S).

    `torch.logsumexp` takes its gradient from exp(log_alpha - log(S)), which is wrong by 5e-4 for float32 logarithms of
    1e4. Here it is that of a softmax.

    Args:
        log_alpha: `(B, C)`.

    Returns:
        The largest log(alpha) and log(S) less that, both `(B, 1)`. The first carries no gradient.
    """
    largest = log_alpha.detach().amax(1, keepdim=True)
    return largest, (log_alpha - largest).exp().sum(1, keepdim=True).log()


def kl_to_uniform(log_alpha: Tensor) -> Tensor:
    r"""Computes KL(Dir(alpha) || Dir(1, ..., 1)).

    With $S = \sum_c \alpha_c$ and $r(x) = (x - 1) (\psi(x) - 1) - \log \Gamma(x)$, the textbook form (Sensoy et al.
    2018, section 4) rearranges to

    $$\sum_c r(\alpha_c) - r(S) + (C - 1) (\psi(S) - 1) - \log \Gamma(C),$$

    whose terms grow as log(alpha): those of the order of alpha log(alpha), which cancel, are gone. What remains of
    rounding is about C times the precision of the type.

    Args:
        log_alpha: Logarithms of the Dirichlet's parameters `(B, C)`, >= 0.

    Returns:
        Divergences `(B,)`, in nats.
    """
    num_classes = log_alpha.shape[1]
    largest, rest = log_total(log_alpha)
    log_strength = (largest + rest).squeeze(1)
    divergence = _entropy_term(log_alpha).sum(1) - _entropy_term(log_strength)
    digamma = log_strength + digamma_less_log(log_strength)
    return divergence + (num_classes - 1) * (digamma - 1.0) - math.lgamma(num_classes)


def _entropy_term(log_alpha: Tensor) -> Tensor:
    """Computes r(x) = (x - 1) (psi(x) - 1) - log Gamma(x) elementwise for x = exp(log_alpha)."""
    boundary = math.log(_SERIES_FROM)
    # Each branch is given arguments of its own range only: where() would pass on a NaN gradient of the other.
    small = log_alpha.clamp(max=boundary).exp()
    direct = (small - 1.0) * (torch.digamma(small) - 1.0) - torch.lgamma(small)
    large = log_alpha.clamp(min=boundary)
    y = torch.exp(-large)
    # Stirling's series of log Gamma and its derivative, collected by powers of 1 / x.
    series = y * (1 / 3 + y * (1 / 12 + y * (1 / 90 + y * (-1 / 120 - y / 210))))
    asymptotic = 0.5 - 0.5 * math.log(2.0 * math.pi) - 0.5 * large + series
    return torch.where(log_alpha < boundary, direct, asymptotic)
