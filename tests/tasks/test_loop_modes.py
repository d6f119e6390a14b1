"""What timm's loop does with the task: accumulation, scaling, clipping, averaging, memory formats, recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.joint import CLASSES, Opposing, assert_equal, batch, convnext, gradients, gradients_of, resnet, step
from timm.data.mixup import Mixup
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import Tensor, nn

from sfsc_timm.losses import EvidentialLoss
from sfsc_timm.tasks import SFSCTask


def halves(images: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.chunk(2), target.chunk(2), strict=True))


def micro_step(task: SFSCTask, images: Tensor, target: Tensor, accum_steps: int) -> dict[str, Any]:
    """As timm's loop: the loss is divided in place."""
    result = task(images, target)
    loss = result['loss']
    loss /= accum_steps
    loss.backward()
    return result


@pytest.mark.parametrize('scope', ['shell', 'global', 'layer'])
def test_micro_batches_equal_the_whole_batch(scope: str) -> None:
    images, target = batch(8)
    whole = SFSCTask(convnext(), Opposing(), scope=scope, seed=3)
    expected = gradients_of(whole, images, target)
    assert whole.last_projection is not None
    assert whole.last_projection.conflict_rate > 0.5
    task = SFSCTask(convnext(), Opposing(), scope=scope, seed=3)
    for part in halves(images, target):
        micro_step(task, *part, 2)
    assert_equal(gradients(task), expected)
    assert torch.equal(task.projection.generator.get_state(), whole.projection.generator.get_state())


def test_micro_batches_of_a_resnet_with_its_statistics_fixed() -> None:
    images, target = batch(8)
    expected = gradients_of(SFSCTask(resnet().eval()), images, target)
    task = SFSCTask(resnet().eval())
    for part in halves(images, target):
        micro_step(task, *part, 2)
    assert_equal(gradients(task), expected)


@pytest.mark.parametrize('set_to_none', [True, False])
def test_zero_grad_starts_afresh(set_to_none: bool) -> None:
    task = SFSCTask(convnext(), aggregation='sum')
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.0)
    expected = gradients_of(task, *batch(seed=2))
    for seed in (1, 2):
        optimizer.zero_grad(set_to_none)
        step(task, *batch(seed=seed))
        optimizer.step()
    assert_equal(gradients(task), expected)
    result = task(*batch(seed=2))  # some loops reset between forward and backward
    optimizer.zero_grad(set_to_none)
    result['loss'].backward()
    assert_equal(gradients(task), expected)


def test_only_zero_grad_starts_afresh() -> None:
    """Clipping between micro-steps loses nothing, and parameters outside of the optimizer do not hold old sums."""
    images, target = batch(8)
    expected = gradients_of(SFSCTask(convnext(), aggregation='sum'), images, target)
    task = SFSCTask(convnext(), aggregation='sum')
    for part in halves(images, target):
        micro_step(task, *part, 2)
        clipped = gradients(task)
        nn.utils.clip_grad_norm_(task.trainable_module.parameters(), 1e-3)
    assert_equal(clipped, expected)
    head = torch.optim.SGD(task.trainable_module.fc.parameters(), lr=0.0)
    head.zero_grad(set_to_none=False)
    step(task, images, target)
    assert_equal(gradients(task), expected)


def test_sums_are_freed_before_the_next_step_needs_memory() -> None:
    task = SFSCTask(convnext())
    step(task, *batch())
    sums = task._sums._accumulator
    assert sums.numel() <= 1.02 * sums.layout.numel()
    task.zero_grad()
    task(*batch())
    assert sums.numel() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    images, target = batch()
    expected = gradients_of(SFSCTask(convnext(), aggregation='sum'), images, target)
    task = SFSCTask(convnext(), aggregation='sum')
    with torch.autocast('cpu', dtype):
        result = task(images, target)
    assert result['loss'].dtype == torch.float32
    result['loss'].backward()
    assert {gradient.dtype for gradient in gradients(task)} == {torch.float32}
    assert_equal(gradients(task), expected, 0.1)


def test_half_precision_weights() -> None:
    images, target = batch()
    expected = gradients_of(SFSCTask(convnext(), aggregation='sum'), images, target)
    task = SFSCTask(convnext(), aggregation='sum', dtype=torch.bfloat16).to(torch.bfloat16)
    step(task, images.bfloat16(), target)
    assert {gradient.dtype for gradient in gradients(task)} == {torch.bfloat16}
    assert_equal([gradient.float() for gradient in gradients(task)], expected, 0.1)


class Faint(EvidentialLoss):
    """A loss so small that its gradients vanish in float16 unless they are scaled before they are rounded."""

    def with_uncertainty(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        loss, uncertainty = super().with_uncertainty(*args, **kwargs)
        return 2.0**-24 * loss, uncertainty


def test_the_scale_enters_before_gradients_are_rounded_to_half_precision() -> None:
    images, target = batch()
    expected = gradients_of(SFSCTask(convnext(), Faint(), aggregation='sum'), images, target)
    model = convnext()
    task = SFSCTask(model, Faint(), aggregation='sum')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**24)
    with torch.autocast('cpu', torch.float16):
        loss = task(images, target)['loss']
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert_equal([2.0**24 * g for g in gradients(model)], [2.0**24 * g for g in expected], 0.1)


@pytest.mark.parametrize('bad', range(4))
def test_an_infinite_gradient_of_any_width_skips_the_step(bad: int) -> None:
    class Overflowing(EvidentialLoss):
        calls = 0

        def with_uncertainty(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            loss, uncertainty = super().with_uncertainty(*args, **kwargs)
            self.calls += 1
            return loss * (float('inf') if self.calls == bad + 1 else 1.0), uncertainty

    model = convnext()
    task = SFSCTask(model, Overflowing())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = NativeScaler('cpu')
    scale = scaler.state_dict()['scale']
    for passes in range(2):
        with torch.autocast('cpu', torch.float16):
            loss = task(*batch())['loss']
        scaler(loss, optimizer, clip_grad=1.0, parameters=task.get_clip_parameters())
        optimizer.zero_grad()
        unchanged = all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
        assert unchanged == (passes == 0)
    assert scaler.state_dict()['scale'] == scale / 2


def test_accumulation_with_a_scaler() -> None:
    images, target = batch(8)
    expected = gradients_of(SFSCTask(convnext()), images, target)
    model = convnext()
    task = SFSCTask(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = NativeScaler('cpu')
    for index, part in enumerate(halves(images, target)):
        with torch.autocast('cpu', torch.float16):
            loss = task(*part)['loss']
        loss /= 2
        scaler(loss, optimizer, clip_grad=1e9, parameters=task.get_clip_parameters(), need_update=index == 1)
    assert_equal(gradients(model), expected, 0.1)


@pytest.mark.parametrize('mode', ['norm', 'value', 'agc'])
def test_clipping(mode: str) -> None:
    task = SFSCTask(convnext())
    before = gradients_of(task, *batch())
    limit = {'norm': 0.1, 'value': 1e-3, 'agc': 1e-2}[mode]
    dispatch_clip_grad(task.get_clip_parameters(exclude_head=mode == 'agc'), limit, mode)
    after = gradients(task)
    norm = torch.cat([g.flatten() for g in before]).norm()
    for old, new in zip(before[:-2], after[:-2], strict=True):
        if mode == 'norm':
            torch.testing.assert_close(new, old * 0.1 / norm)
        elif mode == 'value':
            assert torch.equal(new, old.clamp(-limit, limit))
    assert all(torch.equal(a, b) for a, b in zip(before[-2:], after[-2:], strict=True)) == (mode == 'agc')
    assert any(not torch.equal(a, b) for a, b in zip(before[:-2], after[:-2], strict=True))


@pytest.mark.parametrize('classifier', ['linear', 'cosine'])
def test_adaptive_clipping_leaves_out_the_classifier_alone(classifier: str) -> None:
    model = convnext(classifier_type=classifier)
    left_out = {id(p) for p in model.parameters()} - {
        id(p) for p in SFSCTask(model).get_clip_parameters(exclude_head=True)
    }
    assert left_out == {id(p) for p in model.fc.parameters()}
    assert len(SFSCTask(model).get_clip_parameters()) == len(list(model.parameters()))


def test_moving_average() -> None:
    model = convnext(width=0.5)
    task = SFSCTask(model)
    task.setup_ema(decay=0.5)
    average = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in range(2):
        step(task, *batch(seed=index))
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema()
        average = [0.5 * a + 0.5 * p.detach() for a, p in zip(average, model.parameters(), strict=True)]
    ema = task.get_trainable_module(ema=True)
    assert_equal(list(ema.module.parameters()), average)
    assert ema.module.width == 0.5
    images, _ = batch()
    with torch.no_grad():
        model.load_state_dict(ema.module.state_dict())
        torch.testing.assert_close(ema(images), model.eval()(images))
    assert 'task_state' in task.get_checkpoint_state()
    assert set(task.get_checkpoint_state(ema=True)) == {'state_dict_ema'}


def test_channels_last() -> None:
    images, target = batch()
    plain, model = resnet(), resnet().to(memory_format=torch.channels_last)
    for each, inputs in ((plain, images), (model, images.contiguous(memory_format=torch.channels_last))):
        task = SFSCTask(each)
        for _ in range(2):  # the second draws another order of the projection
            task.zero_grad()
            step(task, inputs, target)
    assert_equal(gradients(model), gradients(plain))
    for parameter in model.parameters():
        assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('create', [convnext, resnet])
def test_gradient_checkpointing_changes_nothing(create: Any, half: bool) -> None:
    """In half precision the recomputation runs in backward, when the model is long at its largest width."""
    images, target = batch()
    found = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create(drop_path_rate=0.3)
        model.set_grad_checkpointing(enable)
        task = SFSCTask(model)
        with torch.autocast('cpu', torch.float16, enabled=half):
            loss = task(images, target)['loss']
        loss.backward()
        found.append(gradients(model))
    assert_equal(found[1], found[0])


def test_drop_path_and_dropout_draw_for_each_width() -> None:
    task = SFSCTask(convnext(drop_path_rate=0.5, drop_rate=0.5), aggregation='sum')
    first = gradients_of(task, *batch())
    assert any(not torch.equal(a, b) for a, b in zip(first, gradients_of(task, *batch()), strict=True))
    task.trainable_module.eval()
    assert_equal(gradients_of(task, *batch()), gradients_of(task, *batch()))


def test_mixup_targets_equal_their_mixture_of_indices() -> None:
    """The risk is linear in the target, so a soft target's gradient is the mixture of its indices' gradients."""
    images, target = batch()
    mixup = Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)
    mixed, soft = mixup(images.clone(), target)
    assert soft.shape == (4, CLASSES)
    task = SFSCTask(convnext(), aggregation='sum')
    ours = gradients_of(task, mixed, soft)
    task.zero_grad()
    for label in range(CLASSES):  # accumulates the classes' shares, one sample at a time
        for index in range(4):
            step(task, mixed[index : index + 1], torch.tensor([label]), factor=float(soft[index, label]) / 4)
    assert_equal(ours, gradients(task))


def test_label_smoothing_equals_smoothed_targets() -> None:
    images, target = batch()
    smoothed = nn.functional.one_hot(target, CLASSES) * 0.9 + 0.1 / CLASSES
    ours = gradients_of(SFSCTask(convnext(), criterion_kwargs={'label_smoothing': 0.1}), images, target)
    assert_equal(ours, gradients_of(SFSCTask(convnext()), images, smoothed))
