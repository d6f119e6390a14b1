"""Widths with batches of their own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers.joint import assert_equal, batch, gradients, resnet, step

from sfsc_timm.losses import Aligned, BatchHardTriplet, CrossEntropyLoss, Objective
from sfsc_timm.losses.objective import cosine_distance
from sfsc_timm.tasks import SFSCTask
from sfsc_timm.tasks._outputs import embedding_of, run_with_embedding


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
def test_smaller_widths_are_compared_with_the_full_one_on_their_own_images(option: str) -> None:
    model, twin = resnet(), resnet()
    images, target = batch(32)
    target = target % 4  # several of each
    triplet = BatchHardTriplet()
    task = SFSCTask(model, Aligned(CrossEntropyLoss(), triplet, **{option: 2.0}), aggregation='sum', own_batches=True)
    step(task, images, target)
    for index, width in enumerate(twin.widths):
        own = slice(8 * index, 8 * index + 8)
        fixed = embedding_of(deepcopy(resnet()).eval(), images[own]).detach()
        with twin.at_width(width):
            logits, embedding = run_with_embedding(twin, images[own])
        loss = CrossEntropyLoss()(logits, target[own]) + triplet(embedding, target[own])
        if width < 1.0 and option == 'distill':
            loss = loss + 2.0 * cosine_distance(embedding, fixed)
        elif width < 1.0:
            loss = loss + 2.0 * triplet(embedding, target[own], fixed)
        loss.backward()
    assert_equal(gradients(model), gradients(twin))
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):  # the second look leaves no trace
        torch.testing.assert_close(ours, theirs)


def test_a_second_look_leaves_modes_and_gradients_alone() -> None:
    """Autocast keeps what it casts: copies made without a gradient must not serve the forward that needs one."""
    images, target = batch(32)
    found = []
    for objective in (
        Objective(CrossEntropyLoss(), BatchHardTriplet()),
        Aligned(CrossEntropyLoss(), BatchHardTriplet()),
    ):
        model = resnet()
        frozen = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
        task = SFSCTask(model, objective, own_batches=True)
        with torch.autocast('cpu', torch.bfloat16):
            loss = task(images, target)['loss']
        loss.backward()
        assert model.training
        assert not frozen.training
        found.append(gradients(model))
    assert_equal(*found)


def test_a_finished_reference_looks_at_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = resnet()
    seen: list[int] = []
    features = reference.forward_features
    monkeypatch.setattr(reference, 'forward_features', lambda images: (seen.append(len(images)), features(images))[1])
    objective = Aligned(CrossEntropyLoss(), distill=1.0)
    step(SFSCTask(resnet(), objective, reference=reference, own_batches=True), *batch(16))
    assert seen == [4, 4, 4, 4]


def test_strangers_conflict_where_a_shared_batch_agrees() -> None:
    """At the start of a training, all widths want the same of the same images, of different ones not."""
    model = resnet()
    images, target = batch(32)
    shared = step(SFSCTask(model), images[:8], target[:8])
    own = step(SFSCTask(model, own_batches=True), images, target)
    pairs = torch.ones(4, 4).triu(1).bool()
    assert own['cosines'][pairs].mean() < shared['cosines'][pairs].mean() - 0.1
