"""In-place distillation of embeddings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ._base import SubModelLoss
from ._objective import Objective, Reference, SubModelOutput
from ._triplet import BatchHardTriplet


class Distilled(Objective):
    """As `Objective`, and embeddings of smaller sub-models are drawn to the full width's of the same images.

    Slimmable networks distil the full width's predictions in place (Yu and Huang, Universally Slimmable Networks, ICCV
    2019); where embeddings are compared across widths, it is these that have to agree.

    Args:
        loss: On logits.
        triplet: As for `Objective`.
        triplet_weight: As for `Objective`.
        weight: Factor of 1 - cosine, which is in [0, 2].
    """

    uses_reference = True

    def __init__(
        self,
        loss: SubModelLoss,
        triplet: BatchHardTriplet | None = None,
        triplet_weight: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(loss, triplet, triplet_weight)
        self.weight = weight

    @property
    def uses_embedding(self) -> bool:
        """Always."""
        return True

    def forward(
        self,
        index: int,
        output: SubModelOutput,
        target: Tensor,
        reference: Reference | None = None,
        kl_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Computes the loss of one sub-model, see `Objective`."""
        loss, uncertainty = super().forward(index, output, target, reference, kl_scale)
        if reference is not None:
            apart = 1.0 - F.cosine_similarity(output.embedding.float(), reference.embedding.float(), dim=1)
            loss = loss + self.weight * apart.mean()
        return loss, uncertainty
