"""SFSC's compatible loss based on uncertainty estimation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import SubModelLoss, at_least_float32, check_shapes, reduce, smooth
from .dirichlet import digamma_less_log, kl_to_uniform, log_total

EVIDENCES = ('exp', 'softplus', 'relu')

# log1p(exp(x)) equals x beyond this in float64; torch's default of 20 is for float32.
_SOFTPLUS_IS_LINEAR = 40.0


class EvidentialLoss(SubModelLoss):
    r"""Bayes risk of the cross-entropy under the Dirichlet distribution that the logits give evidence for.

    With evidence $e = f(z) \ge 0$ of the logits z, $\alpha = e + 1$ and $S = \sum_c \alpha_c$, SFSC's integral (CVPR
    2023, "compatible loss based on uncertainty estimation"; also Sensoy et al. 2018, eq. 4) has the closed form

    $$\int \Big[\sum_c -y_c \log p_c\Big] \mathrm{Dir}(p; \alpha) \, dp = \sum_c y_c (\psi(S) - \psi(\alpha_c)).$$

    The uncertainty $u = C / S$ is 1 without any evidence and falls to 0 as it grows. All is computed from log(alpha),
    in float32 at least, and stays finite in value and gradient for logits of +-1e4.

    Args:
        evidence: f: 'exp', 'softplus' or 'relu'. The last two grow no faster than the logits, so that with hundreds of
            classes little of S is ever the target's: slow to learn, the more so with the bounded logits of a cosine
            classifier. The last also gives classes with negative logits no gradient.
        kl_weight: Weight of KL(Dir(alpha~) || Dir(1)), where alpha~ is alpha less the target's evidence (Sensoy et al.
            2018, section 4): it takes away the evidence for wrong classes. It grows with C log(C); 0 leaves it out.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        reduction: 'mean', 'sum' or 'none' (one loss per sample).

    Raises:
        ValueError: If an option is outside its range.

    Examples:
        >>> from sfsc_timm.losses import EvidentialLoss
        >>> criterion = EvidentialLoss()
        >>> loss, uncertainty = criterion.with_uncertainty(torch.zeros(2, 3), torch.tensor([0, 2]))
    """

    def __init__(
        self,
        evidence: str = 'exp',
        kl_weight: float = 0.0,
        label_smoothing: float = 0.0,
        reduction: str = 'mean',
    ) -> None:
        super().__init__(label_smoothing, reduction)
        if evidence not in EVIDENCES:
            raise ValueError(f'evidence must be one of {", ".join(EVIDENCES)}, got {evidence!r}.')
        if not 0.0 <= kl_weight < math.inf:
            raise ValueError(f'kl_weight must be finite and >= 0, got {kl_weight}; 0 leaves the regulariser out.')
        self.evidence = evidence
        self.kl_weight = kl_weight

    def with_uncertainty(self, logits: Tensor, target: Tensor, kl_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Computes the loss and each sample's uncertainty u = C / S.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` or class probabilities `(B, C)`.
            kl_scale: Factor of `kl_weight`, usually `kl_annealing(step, steps)`. Under torch.compile give it as a
                tensor, or each new value may compile a new graph.

        Returns:
            The reduced loss, and the uncertainty `(B,)` in [0, 1], detached.
        """
        check_shapes(logits, target)
        logits = at_least_float32(logits)
        target = smooth(target, logits.shape[1], self.label_smoothing, logits.dtype)
        log_alpha = _log_alpha(logits, self.evidence)
        losses, log_strength = bayes_risk(log_alpha, target)
        if self.kl_weight > 0.0:
            misleading = _log_alpha(logits, self.evidence, without=target)
            losses = losses + self.kl_weight * kl_scale * kl_to_uniform(misleading)
        uncertainty = (math.log(logits.shape[1]) - log_strength).exp().clamp(max=1.0)
        return reduce(losses, self.reduction), uncertainty

    def extra_repr(self) -> str:
        """Shows the options in the module's repr."""
        return f'evidence={self.evidence!r}, kl_weight={self.kl_weight}, {super().extra_repr()}'


def bayes_risk(log_alpha: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the expected cross-entropy under a Dirichlet distribution.

    Args:
        log_alpha: Logarithms of its parameters `(B, C)`, >= 0.
        target: Class indices `(B,)` or class probabilities `(B, C)`.

    Returns:
        Risks `(B,)` in nats, and the logarithms of S `(B,)`, detached.
    """
    largest, rest = log_total(log_alpha)
    log_strength = largest + rest
    # psi = log + a correction, so that the logarithms can be subtracted before anything is rounded to their size.
    expected = rest + digamma_less_log(log_strength)
    if not target.is_floating_point():
        # Indices need the digamma of one class only, which makes the loss about as cheap as a cross-entropy.
        log_alpha, target = log_alpha.gather(1, target[:, None]), torch.ones_like(rest)
    own = log_alpha - largest + digamma_less_log(log_alpha)
    return (target * (expected - own)).sum(1), log_strength.detach().squeeze(1)


def kl_annealing(step: int, steps: int) -> float:
    """Computes the factor min(1, step / steps) that lets the regulariser in slowly.

    Args:
        step: Number of steps (or epochs) done, >= 0.
        steps: Number of steps (or epochs) after which the factor is 1 (Sensoy et al. 2018 use 10 epochs).

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: If either is out of its range.
    """
    if step < 0 or steps < 1:
        raise ValueError(
            f'step and steps must be >= 0 and >= 1, got {step} and {steps}; the factor of no annealing is 1.'
        )
    return min(1.0, step / steps)


def _log_alpha(logits: Tensor, evidence: str, without: Tensor | None = None) -> Tensor:
    """Computes log(1 + evidence) `(B, C)`, optionally with the evidence for a target removed."""
    if evidence == 'exp':
        if without is not None and without.is_floating_point():
            logits = logits + torch.log1p(-without)
        elif without is not None:
            logits = logits.scatter(1, without[:, None], -math.inf)
        return F.softplus(logits, threshold=_SOFTPLUS_IS_LINEAR)
    gathered = F.softplus(logits, threshold=_SOFTPLUS_IS_LINEAR) if evidence == 'softplus' else F.relu(logits)
    if without is not None and without.is_floating_point():
        gathered = gathered * (1.0 - without)
    elif without is not None:
        gathered = gathered.scatter(1, without[:, None], 0.0)
    return torch.log1p(gathered)
