"""The triplet loss against a naive loop, and the compatible losses against what they are made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfsc_timm.losses import (
    Aligned,
    Asymmetric,
    BackwardCompatible,
    BatchHardTriplet,
    CrossEntropyLoss,
    EvidentialLoss,
    Objective,
    Reference,
    SubModelOutput,
)
from sfsc_timm.models._heads import CosineLinear, classify_fixed

TARGET = torch.tensor([0, 0, 1, 1, 2, 3, 3, 3])


def naive_triplet(anchors: Tensor, others: Tensor, target: Tensor, margin: float, is_same: bool) -> float:
    losses = []
    for i, anchor in enumerate(F.normalize(anchors.double(), dim=1)):
        distances = [float((anchor - F.normalize(o.double(), dim=0)).norm()) for o in others]
        positives = [d for j, d in enumerate(distances) if target[j] == target[i] and not (is_same and j == i)]
        negatives = [d for j, d in enumerate(distances) if target[j] != target[i]]
        if positives and negatives:
            losses.append(max(0.0, max(positives) - min(negatives) + margin))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize('margin', [0.0, 0.3, 2.0])
def test_triplet_equals_a_naive_loop(margin: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 8, 5)
    triplet = BatchHardTriplet(margin)
    assert float(triplet(x, TARGET)) == pytest.approx(naive_triplet(x, x, TARGET, margin, True), abs=1e-6)
    assert float(triplet(x, TARGET, y)) == pytest.approx(naive_triplet(x, y, TARGET, margin, False), abs=1e-6)
    assert float(triplet(7 * x, TARGET)) == pytest.approx(float(triplet(x, TARGET)), abs=1e-6)


@pytest.mark.parametrize('target', [torch.arange(4), torch.zeros(4, dtype=torch.long)], ids=['alone', 'all the same'])
def test_a_batch_without_triplets_gives_nothing(target: Tensor) -> None:
    x = torch.randn(4, 5, requires_grad=True)
    loss = BatchHardTriplet()(x, target)
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert not x.grad.any()


def test_equal_embeddings_have_a_finite_gradient() -> None:
    x = torch.ones(8, 5, requires_grad=True)
    BatchHardTriplet()(x, TARGET).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_soft_targets_are_refused() -> None:
    with pytest.raises(ValueError, match='mixup'):
        BatchHardTriplet()(torch.randn(4, 5), torch.rand(4, 3))
    with pytest.raises(ValueError, match='margin'):
        BatchHardTriplet(-1.0)


def outputs(classifier: nn.Module) -> tuple[SubModelOutput, Reference, Tensor]:
    torch.manual_seed(1)
    embedding = torch.randn(8, 6, requires_grad=True)
    theirs = torch.randn(8, 6)
    reference = Reference(theirs, lambda e: classify_fixed(classifier, e))
    return SubModelOutput(classifier(embedding), embedding), reference, embedding


def test_the_shared_classifier_with_a_triplet_loss() -> None:
    classifier = nn.Linear(6, 4)
    output, _, embedding = outputs(classifier)
    loss, uncertainty = Objective(EvidentialLoss(), BatchHardTriplet(), 0.5)(0, output, TARGET)
    expected, seen = EvidentialLoss().with_uncertainty(output.logits, TARGET)
    torch.testing.assert_close(loss, expected + 0.5 * BatchHardTriplet()(embedding, TARGET))
    torch.testing.assert_close(uncertainty, seen)


@pytest.mark.parametrize('classifier', [nn.Linear(6, 4), CosineLinear(6, 4)], ids=['linear', 'cosine'])
@pytest.mark.parametrize('inside', [True, False])
def test_backward_compatible(classifier: nn.Module, inside: bool) -> None:
    output, reference, embedding = outputs(classifier)
    own = [nn.Linear(6, 4), nn.Linear(6, 4)] if inside else None
    objective = BackwardCompatible(CrossEntropyLoss(), own, weight=2.0)
    loss, _ = objective(1, output, TARGET, reference)
    mine = output.logits if own is None else own[1](embedding)
    torch.testing.assert_close(
        loss, F.cross_entropy(mine, TARGET) + 2.0 * F.cross_entropy(classifier(embedding), TARGET)
    )
    found = torch.autograd.grad(loss, list(classifier.parameters()), allow_unused=True)
    if inside:
        assert all(g is None for g in found), "the reference's classifier learns from the reference alone"
    full, _ = objective(2, output, TARGET)
    torch.testing.assert_close(full, F.cross_entropy(output.logits, TARGET))


def test_the_references_view_alone() -> None:
    classifier = nn.Linear(6, 4)
    output, reference, embedding = outputs(classifier)
    loss, _ = BackwardCompatible(CrossEntropyLoss(), alone=True)(0, output, TARGET, reference)
    torch.testing.assert_close(loss, F.cross_entropy(classifier(embedding), TARGET))
    assert torch.autograd.grad(loss, classifier.weight, allow_unused=True) == (None,)


def test_asymmetric() -> None:
    output, reference, embedding = outputs(nn.Linear(6, 4))
    own = nn.Linear(6, 4)
    loss, _ = Asymmetric(CrossEntropyLoss(), BatchHardTriplet(0.2), own=[own], weight=3.0)(0, output, TARGET, reference)
    expected = F.cross_entropy(own(embedding), TARGET)
    expected = expected + 3.0 * BatchHardTriplet(0.2)(embedding, TARGET, reference.embedding)
    torch.testing.assert_close(loss, expected)


def test_asymmetric_with_regression() -> None:
    output, reference, embedding = outputs(nn.Linear(6, 4))
    plain, _ = Asymmetric(CrossEntropyLoss())(0, output, TARGET, reference)
    loss, _ = Asymmetric(CrossEntropyLoss(), regression=5.0)(0, output, TARGET, reference)
    unit, other = F.normalize(embedding, dim=1), F.normalize(reference.embedding, dim=1)
    torch.testing.assert_close(loss - plain, 5.0 * (1.0 - (unit * other).sum(1)).mean())


def test_asymmetric_alone() -> None:
    classifier = nn.Linear(6, 4)
    output, reference, embedding = outputs(classifier)
    objective = Asymmetric(CrossEntropyLoss(), alone=True, weight=3.0, triplet=BatchHardTriplet(0.5))
    loss, uncertainty = objective(0, output, TARGET, reference)
    torch.testing.assert_close(loss, 3.0 * BatchHardTriplet()(embedding, TARGET, reference.embedding))
    assert torch.autograd.grad(loss, classifier.weight, allow_unused=True, retain_graph=True) == (None,)
    _, expected = CrossEntropyLoss().with_uncertainty(classifier(embedding), TARGET)
    torch.testing.assert_close(uncertainty, expected.detach())
    full, _ = objective(2, output, TARGET)
    own = F.cross_entropy(output.logits, TARGET) + BatchHardTriplet(0.5)(embedding, TARGET)
    torch.testing.assert_close(full, own)


def test_another_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match='Linear or a CosineLinear, got Identity'):
        classify_fixed(nn.Identity(), torch.randn(2, 3))


def test_aligned() -> None:
    output, reference, embedding = outputs(nn.Linear(6, 4))
    objective = Aligned(CrossEntropyLoss(), BatchHardTriplet(), 0.5, distill=2.0, cross=3.0)
    assert objective.uses_embedding
    loss, _ = objective(0, output, TARGET, reference)
    cosine = (F.normalize(embedding, dim=1) * F.normalize(reference.embedding, dim=1)).sum(1)
    alone = F.cross_entropy(output.logits, TARGET) + 0.5 * BatchHardTriplet()(embedding, TARGET)
    across = BatchHardTriplet()(embedding, TARGET, reference.embedding)
    torch.testing.assert_close(loss, alone + 2.0 * (1 - cosine).mean() + 3.0 * across)
    torch.testing.assert_close(objective(1, output, TARGET)[0], alone)
    with pytest.raises(ValueError, match='triplet'):
        Aligned(CrossEntropyLoss(), cross=1.0)
