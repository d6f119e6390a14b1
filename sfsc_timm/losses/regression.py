"""Embeddings that agree with a finished full width's, and nothing else: no labels are needed."""

from __future__ import annotations

from torch import Tensor

from .objective import Objective, Reference, SubModelOutput, cosine_distance


class EmbeddingRegression(Objective):
    """Every sub-model learns the embeddings of a finished full-width model; targets are not looked at.

    Plain regression, by which Budnik and Avrithis (Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021) find
    asymmetric search to work best. The full width learns them, too, as it serves, so that it stays what it is.
    """

    uses_reference = True
    keeps_full = True

    def follow(
        self, index: int, output: SubModelOutput, target: Tensor, reference: Reference, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes 1 - cosine to the reference's embeddings, the mean over images, in [0, 2]; no uncertainty."""
        del index, target, kl_scale
        return cosine_distance(output.embedding, reference.embedding), output.embedding.new_zeros(())

    def identify(
        self, index: int, logits: Tensor, embedding: Tensor, target: Tensor, kl_scale: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refuses to learn without a reference.

        Raises:
            ValueError: Always.
        """
        del index, logits, embedding, target, kl_scale
        raise ValueError('reference must be given to learn embeddings from, got None; give SFSCTask(reference=...)')
