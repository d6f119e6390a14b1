"""Images without a label, of which smaller widths learn a finished full width's embedding."""

from __future__ import annotations

import pytest
import torch
from helpers.joint import assert_equal, batch, gradients, resnet, step
from torch import Tensor

from sfsc_timm.losses import Aligned, BatchHardTriplet, CrossEntropyLoss, Objective
from sfsc_timm.losses.objective import cosine_distance
from sfsc_timm.recipes import create_recipe
from sfsc_timm.tasks import SFSCTask
from sfsc_timm.tasks._compose import compose
from sfsc_timm.tasks._outputs import run_with_embedding


def views(image: Tensor) -> list[Tensor]:
    """All that an image (C, H, W) looks like when turned by right angles and mirrored, in its own shape."""
    turned = [torch.rot90(flipped, k, (1, 2)) for flipped in (image, image.flip(2)) for k in range(4)]
    return [view for view in turned if view.shape == image.shape]


@pytest.mark.parametrize('size', [(8, 8), (12, 5)])
def test_every_image_is_a_box_of_one_view_on_another(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, *size)  # no two pixels are alike
    candidates = [view for image in images for view in views(image)]
    shown: set[int] = set()
    for image in compose(images, 64):
        matches = torch.stack([(image == view).all(0) for view in candidates])
        pairs = [(i, j) for i in range(len(matches)) for j in range(len(matches)) if is_pasted(matches[i], matches[j])]
        assert pairs
        shown.update(pairs[0])
    assert len(shown) > len(candidates) / 2


def is_pasted(box: Tensor, ground: Tensor) -> bool:
    """Whether there is a box in which one image shows while the other shows around it."""
    rows, columns = ((~ground).any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return bool(ground.all())
    inside = torch.zeros_like(ground)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return bool(torch.where(inside, box, ground).all())


def test_as_many_as_asked_for_and_the_same_again() -> None:
    images, _ = batch(4)
    before = images.clone()
    torch.manual_seed(3)
    first = compose(images, 7)
    torch.manual_seed(3)
    assert torch.equal(first, compose(images, 7))
    assert len(first) == 7
    assert compose(images, 0).shape == (0, 3, 32, 32)
    assert torch.equal(images, before)


def test_gradients_are_those_of_plain_autograd() -> None:
    model, twin, reference = resnet(), resnet(), resnet().eval()
    images, target = batch(8)
    target = target % 4
    triplet = BatchHardTriplet()
    objective = Aligned(CrossEntropyLoss(), triplet, 3.0, distill=2.0, triplet_from=3)
    task = SFSCTask(model, objective, aggregation='sum', reference=reference, composed=0.5)
    torch.manual_seed(5)
    result = step(task, images, target)
    torch.manual_seed(5)
    others = compose(images, 4)
    with torch.no_grad():
        known, wanted = reference.embed(images), reference.embed(others)
    for index, width in enumerate(twin.widths):
        is_full = width == 1.0
        with twin.at_width(width):
            logits, embedding = run_with_embedding(twin, images if is_full else torch.cat([images, others]))
        loss = CrossEntropyLoss()(logits[:8], target) + 2.0 * cosine_distance(embedding[:8], known)
        if is_full:
            loss = loss + 3.0 * triplet(embedding, target)
            torch.testing.assert_close(result['output'], logits.detach())
        else:
            loss = loss + 2.0 * cosine_distance(embedding[8:], wanted)
        torch.testing.assert_close(result['losses'][index], loss.detach())
        loss.backward()
    assert_equal(gradients(model), gradients(twin))
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_reference_looks_at_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = resnet()
    seen: list[int] = []
    features = reference.forward_features
    monkeypatch.setattr(reference, 'forward_features', lambda images: (seen.append(len(images)), features(images))[1])
    task = SFSCTask(resnet(), Aligned(CrossEntropyLoss(), distill=1.0), reference=reference, composed=0.5)
    step(task, *batch(8))
    assert seen == [12]


def test_what_does_not_go_together() -> None:
    aligned = Aligned(CrossEntropyLoss(), distill=1.0)
    for objective, options in (
        (Objective(CrossEntropyLoss()), {'reference': resnet()}),
        (aligned, {}),
        (aligned, {'reference': resnet(), 'own_batches': True}),
    ):
        with pytest.raises(ValueError, match=r'composed must be 0 but for an objective .* got 1\.0'):
            SFSCTask(resnet(), objective, composed=1.0, **options)
    with pytest.raises(ValueError, match=r'composed must be at least 0, .* got -1'):
        SFSCTask(resnet(), aligned, reference=resnet(), composed=-1.0)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'own_batches': 0.5}, 'own_batches must be left out with a teacher'),
        ({'distill': 1.0}, 'distill must be left out with a teacher'),
        ({'teacher': 0, 'composed': 0.5}, 'composed must be left out where teacher is 0'),
        ({'teacher': -1}, 'teacher must be'),
    ],
)
def test_options_of_the_recipe_that_do_not_go_together(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_recipe('sfsc', **options)


def test_without_a_reference_the_recipe_is_the_one_without_a_teacher() -> None:
    images, target = batch(8)
    found = []
    for options in ({}, {'teacher': 0}):
        torch.manual_seed(0)
        model = resnet()
        step(create_recipe('sfsc', **options).create_task(model, verbose=False), images, target)
        found.append(gradients(model))
    assert_equal(*found)
    with_one = create_recipe('sfsc').create_task(resnet(), reference=resnet(), triplet_weight=2.0, verbose=False)
    assert with_one.composed == 1.0
    assert (with_one.objective.distill, with_one.objective.triplet_from) == (20.0, 3)


@pytest.mark.parametrize(
    'options, opt, rate',
    [
        ({}, 'sgd', 0.3),
        ({}, 'lars', 0.3),
        ({}, 'adamw', 1.0),
        ({}, 'lookahead_adamw', 1.0),
        ({}, 'Lookahead_AdamW', 1.0),  # timm takes any case
        ({'joint_lr': 0.5}, 'adamw', 0.5),
        ({'teacher': 0}, 'sgd', 1.0),
    ],
)
def test_the_rate_of_all_widths_is_that_of_the_optimizer(options: dict[str, float], opt: str, rate: float) -> None:
    assert create_recipe('sfsc', **options).joint_rate(opt) == rate
