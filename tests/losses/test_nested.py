"""Losses at several embedding sizes against sums by hand, and the gradients of a whole step."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfsc_timm  # noqa: F401
from sfsc_timm.losses import (
    Aligned,
    BackwardCompatible,
    BatchHardTriplet,
    CrossEntropyLoss,
    Nested,
    Objective,
    Reference,
    SubModelOutput,
)
from sfsc_timm.models._heads import CosineLinear
from sfsc_timm.recipes import create_recipe, list_recipes
from sfsc_timm.tasks import SFSCTask

TARGET = torch.tensor([0, 0, 1, 1, 2, 2])
SIZES = (2, 4, 8)
SMALL = {'channels': (16, 16, 32, 32), 'stem_width': 8, 'num_classes': 3, 'embed_dims': SIZES}


def create(**kwargs: Any) -> Any:
    """A model whose norms use their running statistics, so that nothing depends on the order of forwards."""
    torch.manual_seed(0)
    return timm.create_model('sfsc_resnet18d', **{**SMALL, **kwargs}).eval()


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(6, 3, 32, 32)


def cut(classifier: Any, embedding: Tensor, size: int) -> Tensor:
    """Logits of the first numbers, without our code."""
    x, weight = embedding[:, :size], classifier.weight[:, :size]
    if isinstance(classifier, CosineLinear):
        return classifier.scale * F.normalize(x, dim=1) @ F.normalize(weight, dim=1).T
    return x @ weight.T + classifier.bias


@pytest.mark.parametrize('weight', [1.0, 0.25, 0.0])
@pytest.mark.parametrize('classifier', [nn.Linear(8, 4), CosineLinear(8, 4)], ids=['linear', 'cosine'])
def test_the_sum_over_sizes(classifier: nn.Module, weight: float) -> None:
    torch.manual_seed(1)
    embedding, theirs = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8)
    output = SubModelOutput(
        classifier(embedding), embedding, lambda e: cut(classifier, F.pad(e, (0, 8 - e.shape[1])), e.shape[1])
    )
    objective = Nested(Aligned(CrossEntropyLoss(), BatchHardTriplet(), 0.5, distill=2.0), SIZES, weight)
    reference = Reference(theirs, lambda e: e)
    total = torch.zeros(())
    for size in SIZES:
        loss = F.cross_entropy(cut(classifier, embedding, size), TARGET)
        loss = loss + 0.5 * BatchHardTriplet()(embedding[:, :size], TARGET)
        loss = loss + 2.0 * (1 - F.cosine_similarity(embedding[:, :size], theirs[:, :size])).mean()
        total = total + (1.0 if size == 8 else weight) * loss
    found, uncertainty = objective(0, output, TARGET, reference)
    torch.testing.assert_close(found, total)
    torch.testing.assert_close(uncertainty, CrossEntropyLoss().with_uncertainty(output.logits, TARGET)[1])
    for mine, expected in zip(
        torch.autograd.grad(found, [embedding, *classifier.parameters()]),
        torch.autograd.grad(total, [embedding, *classifier.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected)


def test_classifiers_of_their_own_are_cut_too() -> None:
    torch.manual_seed(1)
    embedding, own, full = torch.randn(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)
    output = SubModelOutput(full(embedding), embedding, lambda e: F.linear(e, full.weight[:, : e.shape[1]]))
    reference = Reference(embedding, lambda e: cut(full, F.pad(e, (0, 8 - e.shape[1])), e.shape[1]))
    found, _ = Nested(BackwardCompatible(CrossEntropyLoss(), [own], 3.0), SIZES)(0, output, TARGET, reference)
    expected = [
        F.cross_entropy(cut(own, embedding, size), TARGET) + 3.0 * F.cross_entropy(cut(full, embedding, size), TARGET)
        for size in SIZES
    ]
    torch.testing.assert_close(found, torch.stack(expected).sum())


@pytest.mark.parametrize('kind', ['linear', 'cosine'])
@pytest.mark.parametrize('name', ['sum', 'bct-s'])
def test_the_gradients_of_a_step(name: str, kind: str) -> None:
    model = create(classifier_type=kind)
    task = create_recipe(name, size_weight=0.5).create_task(model, triplet_weight=0.5, verbose=False)
    result = task(images(), TARGET)
    result['loss'].backward()
    found = {n: p.grad.clone() for n, p in [*model.named_parameters(), *task.objective.named_parameters()]}
    model.zero_grad()
    task.objective.zero_grad()
    frozen = deepcopy(model.fc).requires_grad_(False)
    for index, width in enumerate(model.widths):
        with model.at_width(width):
            embedding, total = model.embed(images()), torch.zeros(())
            for size in SIZES:
                follows = name == 'bct-s' and width < 1.0
                classifier: Any = task.objective.objective.own[index] if follows else model.fc  # type: ignore[union-attr]
                loss = F.cross_entropy(cut(classifier, embedding, size), TARGET)
                loss = loss + 0.5 * BatchHardTriplet()(embedding[:, :size], TARGET)
                if follows:
                    loss = loss + F.cross_entropy(cut(frozen, embedding, size), TARGET)
                total = total + (1.0 if size == 8 else 0.5) * loss
            torch.testing.assert_close(result['losses'][index], total.detach())
            total.backward()
    for n, p in [*model.named_parameters(), *task.objective.named_parameters()]:
        torch.testing.assert_close(found[n], p.grad, rtol=1e-4, atol=1e-5, msg=n)


@pytest.mark.parametrize('name', sorted(list_recipes()))
def test_every_recipe_trains_every_size(name: str) -> None:
    recipe = create_recipe(name)
    if recipe.separate:
        model, reference = create(widths=(1.0,), full_width=0.5), create() if recipe.follows else None
    else:
        model, reference = create(), create() if recipe.keeps_start else None
    task = recipe.create_task(model, reference=reference, triplet_weight=1.0, verbose=False)
    parts = recipe.batches_per_step(len(model.widths))
    result = task(images().repeat(parts, 1, 1, 1), TARGET.repeat(parts))
    largest = create_recipe(name, size_weight=0.0)
    task = largest.create_task(model, reference=reference, triplet_weight=1.0, verbose=False)
    assert (result['losses'] > 1.5 * task(images().repeat(parts, 1, 1, 1), TARGET.repeat(parts))['losses']).all()


def test_a_model_of_one_size_is_trained_as_before() -> None:
    one = create(embed_dims=None, embed_dim=8)
    task = SFSCTask(one, verbose=False)
    assert type(task.objective) is Objective
    assert not task.objective.uses_embedding
    with pytest.raises(ValueError, match=r'size_weight must be left out for a model of one embedding size, got 0\.5'):
        SFSCTask(one, size_weight=0.5)
    nested = create()
    largest = SFSCTask(nested, size_weight=0.0, verbose=False)(images(), TARGET)
    largest['loss'].backward()
    whole = task(images(), TARGET)
    whole['loss'].backward()
    assert torch.equal(largest['losses'], whole['losses'])
    for (name, p), (_, q) in zip(nested.named_parameters(), one.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_what_sizes_need() -> None:
    with pytest.raises(ValueError, match='weight must be >= 0, got -1'):
        Nested(Objective(CrossEntropyLoss()), SIZES, -1.0)
    with pytest.raises(ValueError, match='classify must be given'):
        SubModelOutput(torch.zeros(2, 3), torch.zeros(2, 8)).leading(4)
    task = SFSCTask(create(), verbose=False)
    assert 'dims=(2, 4, 8), weight=1.0' in repr(task.objective)
    with pytest.raises(RuntimeError, match='several sizes'):
        task.compile(backend='eager')
