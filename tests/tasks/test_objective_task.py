"""The task with objectives that see embeddings and the full width: gradients as plain autograd has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

import sfsc_timm  # noqa: F401
from sfsc_timm.losses import BatchHardTriplet
from sfsc_timm.models._heads import classify_fixed
from sfsc_timm.recipes import create_recipe, list_recipes

TARGET = torch.tensor([0, 0, 1, 1, 2, 2])
SMALL = {'channels': (16, 16, 32, 32), 'stem_width': 8, 'embed_dim': 8, 'num_classes': 3}


def create(**kwargs: Any) -> Any:
    """A model whose norms use their running statistics, so that nothing depends on the order of forwards."""
    torch.manual_seed(0)
    return timm.create_model('sfsc_resnet18d', **SMALL, **kwargs).eval()


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(6, 3, 32, 32)


def embed(model: Any) -> Tensor:
    return model.forward_head(model.forward_features(images()), pre_logits=True)


def gradients(task: Any) -> dict[str, Tensor]:
    named = [*task.trainable_module.named_parameters(), *task.objective.named_parameters()]
    return {name: p.grad.clone() for name, p in named}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize('name', ['bct-s', 'asymmetric-s'])
@pytest.mark.parametrize('triplet', [0.0, 0.5])
def test_inside_one_network(name: str, triplet: float) -> None:
    model = create()
    task = create_recipe(name).create_task(model, triplet_weight=triplet, verbose=False)
    result = task(images(), TARGET)
    result['loss'].backward()
    found = gradients(task)
    model.zero_grad()
    task.objective.zero_grad()
    with torch.no_grad():
        theirs = embed(model)
    total = torch.zeros(())
    for index, width in enumerate(model.widths):
        with model.at_width(width):
            embedding = embed(model)
            logits = model.fc(embedding) if width == 1.0 else task.objective.own[index](embedding)
            loss = F.cross_entropy(logits, TARGET)
            if width < 1.0 and name == 'bct-s':
                loss = loss + F.cross_entropy(classify_fixed(model.fc, embedding), TARGET)
            elif width < 1.0:
                loss = loss + BatchHardTriplet()(embedding, TARGET, theirs)
            if triplet:
                loss = loss + triplet * BatchHardTriplet()(embedding, TARGET)
            torch.testing.assert_close(result['losses'][index], loss.detach())
            loss.backward()
            total = total + loss.detach()
    torch.testing.assert_close(result['loss'].detach(), total)
    assert_same(found, gradients(task))


@pytest.mark.parametrize('name', ['bct', 'asymmetric'])
def test_networks_of_their_own(name: str) -> None:
    reference = create()
    before = {key: value.clone() for key, value in reference.state_dict().items()}
    model = create(widths=(1.0,), full_width=0.5)
    task = create_recipe(name).create_task(model, reference=reference, verbose=False)
    task.train()
    assert not reference.training
    task.eval()
    task(images(), TARGET)['loss'].backward()
    found = gradients(task)
    model.zero_grad()
    embedding = embed(model)
    loss = F.cross_entropy(model.fc(embedding), TARGET)
    with torch.no_grad():
        theirs = embed(reference)
    if name == 'bct':
        loss = loss + F.cross_entropy(classify_fixed(reference.fc, embedding), TARGET)
    else:
        loss = loss + BatchHardTriplet()(embedding, TARGET, theirs)
    loss.backward()
    assert_same(found, gradients(task))
    assert all(p.grad is None for p in reference.parameters())
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())


def test_own_parameters_are_clipped_saved_and_restored() -> None:
    task = create_recipe('bct-s').create_task(create(), verbose=False)
    assert len(task.extra_parameters) == 6
    assert {id(p) for p in task.extra_parameters} <= {id(p) for p in task.get_clip_parameters()}
    other = create_recipe('bct-s').create_task(create(), verbose=False)
    with torch.no_grad():
        task.extra_parameters[0].mul_(3)
    other.load_task_state(task.get_task_state())
    assert torch.equal(other.extra_parameters[0], task.extra_parameters[0])
    plain = create_recipe('sfsc', teacher=0).create_task(create(), verbose=False)
    with pytest.raises(ValueError, match='objective'):
        other.load_task_state(plain.get_task_state())


def test_compiling_is_refused_where_embeddings_are_needed() -> None:
    task = create_recipe('sfsc', teacher=0).create_task(create(), triplet_weight=1.0, verbose=False)
    with pytest.raises(RuntimeError, match='embeddings'):
        task.compile(backend='eager')


def test_every_recipe_explains_itself() -> None:
    titles = [cls.title for cls in list_recipes().values()]
    assert len(set(titles)) == len(titles) == 11
    for name, cls in list_recipes().items():
        assert cls.__doc__, name
        assert not cls.__doc__.startswith(cls.__name__ + '('), 'the docstring that dataclasses make'
    with pytest.raises(ValueError, match='sfsc, sfsc-paper, sum'):
        create_recipe('magic')
    with pytest.raises(ValueError, match='scope'):
        create_recipe('sfsc', scop='shell')


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('sfsc', {'kl_weight': -1}, 'kl_weight must be a number >= 0, got -1; the default is 0.0'),
        ('sfsc', {'kl_weight': '0.1'}, "kl_weight must be a number >= 0, got '0.1'"),
        ('sfsc', {'kl_weight': 0.1, 'kl_epochs': 2.5}, 'kl_epochs must be a whole number >= 0'),
        ('sfsc', {'criterion': 'evidental'}, "criterion must be one of cross_entropy, evidential, got 'evidental'"),
        ('sfsc', {'evidence': 'sigmoid'}, 'evidence must be one of exp, softplus, relu'),
        ('sfsc-paper', {'evidence': 'sigmoid'}, "evidence must be one of .*; the default is 'softplus'"),
        ('sfsc', {'scope': 'shells'}, 'scope must be one of global, shell, layer'),
        ('sfsc', {'aggregation': 'pcgard'}, "aggregation must be known, got 'pcgard': weighting must be"),
        ('sfsc', {'teacher': 0, 'own_batches': math.nan}, 'own_batches must be a share of the epochs'),
        ('sum', {'own_batches': 2}, 'own_batches must be a share of the epochs'),
        ('projection', {'evidence': 'relu'}, "evidence must be left out with criterion 'cross_entropy', got 'relu'"),
        ('sfsc', {'kl_epochs': 3}, 'kl_epochs must be left out where kl_weight is 0'),
        ('bct', {'weight': -1}, 'weight must be a number >= 0'),
        ('bct-s', {'own_classifiers': 'no'}, 'own_classifiers must be true or false'),
        ('asymmetric-s', {'metric_margin': None}, 'metric_margin must be a number >= 0, got None'),
    ],
)
def test_options_that_are_wrong_or_would_be_passed_over(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_recipe(name, **options)
