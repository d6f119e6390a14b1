"""Widths with batches of their own."""

from __future__ import annotations

import pytest
import torch
from joint import assert_equal, batch, gradients, resnet, step

from sfsc_timm.losses import Aligned, BatchHardTriplet, CrossEntropyLoss
from sfsc_timm.recipes import create_recipe
from sfsc_timm.tasks import SFSCTask


def test_every_width_learns_from_its_own_part() -> None:
    model = resnet()
    images, target = batch(16)
    task = SFSCTask(model, 'cross_entropy', aggregation='sum', own_batches=True)
    result = step(task, images, target)
    ours = gradients(model)
    twin = resnet()
    for index, width in enumerate(twin.widths):
        with twin.at_width(width):
            own = slice(4 * index, 4 * index + 4)
            logits = twin(images[own])
            loss = CrossEntropyLoss()(logits, target[own])
            loss.backward()
            torch.testing.assert_close(result['losses'][index], loss.detach())
    torch.testing.assert_close(result['output'], logits.detach())  # the active width is the widest
    assert_equal(ours, gradients(twin))


def test_the_same_batch_for_each_is_one_batch_for_all() -> None:
    images, target = batch(4)
    found = []
    for own_batches, times in ((False, 1), (True, 4)):
        model = resnet()
        task = SFSCTask(model, own_batches=own_batches)
        step(task, images.repeat(times, 1, 1, 1), target.repeat(times))
        found.append(gradients(model))
    assert_equal(*found)


def test_parts_are_of_the_same_size() -> None:
    task = SFSCTask(resnet(), own_batches=True)
    with pytest.raises(ValueError, match=r'a batch for each of 4 widths .* got 6 images'):
        task(*batch(6))


@pytest.mark.parametrize('option', ['distill', 'cross'])
def test_comparing_widths_takes_the_same_images(option: str) -> None:
    with pytest.raises(ValueError, match='own_batches must be False with distill and cross'):
        create_recipe('sfsc', **{option: 1.0})
    triplet = BatchHardTriplet()
    objective = Aligned(CrossEntropyLoss(), triplet, **{option: 1.0})
    with pytest.raises(ValueError, match='own_batches must be False with Aligned'):
        SFSCTask(resnet(), objective, own_batches=True)


def test_strangers_conflict_where_a_shared_batch_agrees() -> None:
    """At the start of a training, all widths want the same of the same images, of different ones not."""
    model = resnet()
    images, target = batch(32)
    shared = step(SFSCTask(model), images[:8], target[:8])
    own = step(SFSCTask(model, own_batches=True), images, target)
    pairs = torch.ones(4, 4).triu(1).bool()
    assert own['cosines'][pairs].mean() < shared['cosines'][pairs].mean() - 0.1
