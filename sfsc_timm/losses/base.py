"""What every sub-model loss offers, and the checks they share."""

import torch
from torch import Tensor, nn

REDUCTIONS = ('mean', 'sum', 'none')


class SubModelLoss(nn.Module):
    """Classification loss of one sub-model, with a per-sample uncertainty for the log.

    Both methods take logits `(B, C)` and either class indices `(B,)` or class probabilities `(B, C)` (mixup, cutmix).
    Half-precision logits are converted to float32. Nothing is remembered between calls.

    Args:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        reduction: 'mean', 'sum' or 'none' (one loss per sample).

    Raises:
        ValueError: If an option is outside its range.
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = 'mean') -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}.')
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f'label_smoothing must be in [0, 1), got {label_smoothing}.')
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def with_uncertainty(self, logits: Tensor, target: Tensor, kl_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Computes the loss and each sample's uncertainty.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` or class probabilities `(B, C)`.
            kl_scale: Annealing factor of the loss's regulariser, see `kl_annealing`. A loss without one ignores it.

        Returns:
            The reduced loss, and the uncertainty `(B,)` in [0, 1], detached.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor, kl_scale: float | Tensor = 1.0) -> Tensor:
        """Computes the loss alone; see `with_uncertainty`."""
        return self.with_uncertainty(logits, target, kl_scale)[0]

    def extra_repr(self) -> str:
        """Shows the options in the module's repr."""
        return f'label_smoothing={self.label_smoothing}, reduction={self.reduction!r}'


def check_shapes(logits: Tensor, target: Tensor) -> None:
    """Checks that logits and target describe the same batch and classes.

    Args:
        logits: Must be `(B, C)` with C >= 2.
        target: Must be an integer `(B,)` or a floating-point `(B, C)` tensor.

    Raises:
        ValueError: If they do not.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f'logits must have the shape (B, C) with C >= 2, got {tuple(logits.shape)}.')
    if target.is_floating_point():
        matches = target.shape == logits.shape
    else:
        matches = target.dim() == 1 and target.shape[0] == logits.shape[0]
    if not matches:
        raise ValueError(
            'target must hold integer class indices of shape (B,) or floating-point class probabilities of shape '
            f'(B, C), for logits {tuple(logits.shape)}, got {target.dtype} of shape {tuple(target.shape)}.'
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Converts half-precision tensors to float32 and leaves the others alone."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def smooth(target: Tensor, num_classes: int, amount: float, dtype: torch.dtype) -> Tensor:
    """Turns indices into smoothed probabilities `(B, C)`; leaves everything as it is for an amount of 0.

    Args:
        target: Class indices `(B,)` or probabilities `(B, C)`.
        num_classes: C.
        amount: Share of the probability spread evenly over all classes.
        dtype: Type of probabilities.

    Returns:
        Class indices `(B,)`, or probabilities `(B, C)` of the given type.
    """
    if target.is_floating_point():
        probabilities = target.to(dtype)
    elif amount == 0.0:
        return target.long()
    else:
        probabilities = torch.zeros(target.shape[0], num_classes, dtype=dtype, device=target.device)
        probabilities.scatter_(1, target.long()[:, None], 1.0)
    return probabilities if amount == 0.0 else probabilities * (1.0 - amount) + amount / num_classes


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """Reduces the losses `(B,)` of a batch by 'mean', 'sum' or 'none'."""
    if reduction == 'mean':
        return losses.mean()
    return losses.sum() if reduction == 'sum' else losses
