"""The metric loss of re-identification."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchHardTriplet(nn.Module):
    """Batch-hard triplet loss on unit vectors (Hermans et al., In Defense of the Triplet Loss, 2017, eq. 5).

    Of each anchor, the hardest positive has to be nearer than the hardest negative, by a margin. Anchors without a
    positive or a negative in the batch are left out, so it wants batches of P identities with K images each.

    With embeddings of another model to compare with, it is the asymmetric form (Budnik and Avrithis, Asymmetric Metric
    Learning, CVPR 2021): anchors by the small model, positives and negatives by the large one.

    Args:
        margin: In Euclidean distance of unit vectors, which is in [0, 2].

    Raises:
        ValueError: If the margin is negative.
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        if not margin >= 0.0:
            raise ValueError(f'margin must be >= 0, got {margin}.')
        self.margin = margin

    def forward(self, embedding: Tensor, target: Tensor, others: Tensor | None = None) -> Tensor:
        """Computes the mean over the anchors that have a positive and a negative.

        Args:
            embedding: Anchors `(B, D)`; normalised here.
            target: Their identities `(B,)`.
            others: What to compare them with, `(B, D)` of the same images; None for the anchors themselves, of which
                none is its own positive.

        Returns:
            The loss (), 0 if there is no triplet in the batch.

        Raises:
            ValueError: If the target is not one identity per image, as after mixup.
        """
        if target.is_floating_point() or target.shape != embedding.shape[:1]:
            raise ValueError(
                f'target must hold one identity for each of {len(embedding)} images, got {target.dtype} of shape '
                f'{tuple(target.shape)}; leave out mixup, cutmix and smoothed targets, or the triplet loss.'
            )
        anchors = F.normalize(embedding.float(), dim=1)
        against = anchors if others is None else F.normalize(others.float(), dim=1)
        distances = torch.cdist(anchors, against, compute_mode='donot_use_mm_for_euclid_dist')
        same = target[:, None] == target
        positive = (
            same if others is not None else same & ~torch.eye(len(target), dtype=torch.bool, device=target.device)
        )
        furthest = distances.masked_fill(~positive, -torch.inf).amax(1)
        nearest = distances.masked_fill(same, torch.inf).amin(1)
        losses = (furthest - nearest + self.margin).clamp(min=0.0)
        counts = positive.any(1) & ~same.all(1)
        return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """Shows the margin in the module's repr."""
        return f'margin={self.margin}'
