"""The baseline that switches SFSC's uncertainty term off."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import SubModelLoss, at_least_float32, check_shapes, reduce, smooth


class CrossEntropyLoss(SubModelLoss):
    """Cross-entropy behind the interface of `EvidentialLoss`.

    Its uncertainty is the entropy of the predicted distribution over log(C): 1 for a uniform one, 0 for a certain one.

    Args:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        reduction: 'mean', 'sum' or 'none' (one loss per sample).

    Raises:
        ValueError: If an option is outside its range.
    """

    def with_uncertainty(self, logits: Tensor, target: Tensor, kl_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Computes the loss and each sample's normalised entropy.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` or class probabilities `(B, C)`.
            kl_scale: Not used: there is nothing to anneal.

        Returns:
            The reduced loss, and the uncertainty `(B,)` in [0, 1], detached.
        """
        del kl_scale
        check_shapes(logits, target)
        log_p = F.log_softmax(at_least_float32(logits), 1)
        target = smooth(target, logits.shape[1], self.label_smoothing, log_p.dtype)
        with torch.no_grad():
            entropy = -(log_p.exp() * log_p).sum(1)
        losses = -(target * log_p).sum(1) if target.is_floating_point() else F.nll_loss(log_p, target, reduction='none')
        return reduce(losses, self.reduction), (entropy / math.log(logits.shape[1])).clamp(0.0, 1.0)
