"""PCGrad as a function of the Gramian."""

import torch
from torch import Tensor


def pcgrad_weights(gramian: Tensor, permutations: Tensor) -> Tensor:
    """Computes the weights with which PCGrad sums the gradients.

    PCGrad (Yu et al. 2020, Algorithm 1; SFSC's "aggregation based on gradient projection") takes from every gradient
    its component along each other one that it conflicts with, one after the other, and sums the results. Each result
    is a combination of the given gradients, so only the combinations' coefficients are followed.

    Args:
        gramian: `(m, m)` inner products of the gradients.
        permutations: `(m, m)` integers. Row i is the order in which gradient i meets the others; i itself is skipped.

    Returns:
        Weights `(m,)` >= 1, of the Gramian's type. All are 1 if no two gradients conflict.
    """
    products: list[list[float]] = gramian.tolist()
    total = [0.0] * len(products)
    for i, order in enumerate(permutations.tolist()):
        weights = [0.0] * len(products)
        weights[i] = 1.0
        for j in order:
            inner = sum(product * weight for product, weight in zip(products[j], weights, strict=True))
            # A zero gradient conflicts with none; a rounding error must not make it one that divides by zero.
            if j != i and inner < 0.0 < products[j][j]:
                weights[j] -= inner / products[j][j]
        total = [a + b for a, b in zip(total, weights, strict=True)]
    return gramian.new_tensor(total)


class PCGradWeighting:
    """PCGrad's weights, each call with new random orders.

    Args:
        generator: CPU generator of the orders. All processes of a distributed run need the same seed.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, gramian: Tensor) -> Tensor:
        """Computes the weights `(m,)` of a Gramian `(m, m)`."""
        m = len(gramian)
        return pcgrad_weights(gramian, torch.stack([torch.randperm(m, generator=self.generator) for _ in range(m)]))


def sum_weights(gramian: Tensor) -> Tensor:
    """Gives every gradient the weight 1: the baseline without projection."""
    return gramian.new_ones(len(gramian))
