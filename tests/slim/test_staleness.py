"""In evaluation a narrow width runs on contiguous copies of its slices. A changed weight is never served stale.

Each test makes the copies by a forward, changes weights in one of the ways there are, and compares the next forward
with timm's narrow model on slices of the state_dict. What torch does not count is seen after `refresh()`.
"""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.zoo import (
    CONVNEXT,
    EFFICIENTNET,
    RESNET,
    Member,
    assert_close_to,
    assert_far_from,
    images,
    logits_by_hand,
    predict,
)
from timm.utils import ModelEmaV3, distribute_bn
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

import sfsc_timm

KEY = 'layer1.0.conv1.weight'
Change = Callable[[Any], object]


@pytest.fixture(scope='module')
def original() -> Any:
    torch.manual_seed(0)
    return RESNET.create()


@pytest.fixture
def model(original: Any) -> Any:
    """A slimmable ResNet in evaluation, at a narrow width, that has run at it."""
    model = copy.deepcopy(original)
    model.set_width(0.5)
    assert copies(model)
    return model


class _Spy(TorchFunctionMode):
    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv2d, F.linear):
            self.weights.append(args[1])
        return func(*args, **(kwargs or {}))


def copies(model: nn.Module, run: Callable[[Tensor], Any] | None = None) -> list[Tensor]:
    """Weights that a forward uses and that are not the parameters' own storage."""
    with _Spy() as spy, torch.no_grad():
        (run or model)(images().to(next(model.parameters()).dtype))
    stored = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return [w for w in spy.weights if w.untyped_storage().data_ptr() not in stored]


def parameter(model: nn.Module) -> nn.Parameter:
    return dict(model.named_parameters())[KEY]


def assert_fresh(model: Any, member: Member = RESNET) -> None:
    x = images().to(next(model.parameters()).dtype)
    tolerance = 1e-2 if x.dtype in (torch.half, torch.bfloat16) else 1e-5
    for _ in range(2):
        assert_close_to(predict(model, x), logits_by_hand(member, model, x), tolerance)


def step(optimizer: type[torch.optim.Optimizer], **kwargs: Any) -> Change:
    def change(model: Any) -> None:
        model(images()).square().mean().backward()
        optimizer(model.parameters(), lr=0.01, **kwargs).step()  # type: ignore[call-arg]

    return change


@torch.no_grad()
def in_place(model: Any) -> None:
    parameter(model).mul_(2)


def under_inference_mode(model: Any) -> None:
    with torch.inference_mode():
        parameter(model).mul_(2)


@torch.no_grad()
def foreach(model: Any) -> None:
    torch._foreach_mul_(list(model.parameters()), 1.1)


def data_in_place(model: Any) -> None:
    parameter(model).data.mul_(2)


def data_by_index(model: Any) -> None:
    parameter(model).data[0, 0] = 3.0


def data_held(model: Any) -> None:
    data = parameter(model).data
    predict(model, images())
    data.mul_(2)


def data_assigned(model: Any) -> None:
    parameter(model).data = parameter(model).data * 2


def data_assigned_then_written(model: Any) -> None:
    data_assigned(model)
    predict(model, images())
    data_in_place(model)


def detached(model: Any) -> None:
    parameter(model).detach().mul_(2)


def from_vector(model: Any) -> None:
    vector = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(vector * 1.1, model.parameters())


def state_dict_in_place(model: Any) -> None:
    model.state_dict()[KEY].mul_(2)


def doubled(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor * 2 if key == KEY else tensor for key, tensor in model.state_dict().items()}


def load(model: Any) -> None:
    model.load_state_dict(doubled(model))


def load_assign(model: Any) -> None:
    model.load_state_dict(doubled(model), assign=True)


def load_part(model: Any) -> None:
    part = model.layer1
    part.load_state_dict({k: v * 2 if k == '0.conv1.weight' else v for k, v in part.state_dict().items()})


def new_parameter(model: Any) -> None:
    model.layer1[0].conv1.weight = nn.Parameter(parameter(model).detach() * 2)


def init_weights(model: Any) -> None:
    model.init_weights(zero_init_last=False)


def apply_init(model: Any) -> None:
    model.apply(lambda m: m.weight.data.mul_(2) if isinstance(m, nn.Conv2d) else None)


@torch.no_grad()
def through_the_module(model: Any) -> None:
    model.layer1[0].conv1.weight.mul_(2)


@torch.no_grad()
def data_through_the_module(model: Any) -> None:
    model.layer1[0].conv1.weight.data.mul_(2)


def nn_init(model: Any) -> None:
    nn.init.normal_(model.layer1[0].conv1.weight)


def while_at_another_width(model: Any) -> None:
    with model.at_width(0.25):
        data_in_place(model)


def while_training(model: Any) -> None:
    model.train()
    data_in_place(model)
    model.training = False
    model.eval()


CHANGES: dict[str, Change] = {
    'sgd': step(torch.optim.SGD, foreach=False),
    'sgd_foreach': step(torch.optim.SGD, foreach=True),
    'adamw': step(torch.optim.AdamW, foreach=False),
    'adamw_foreach': step(torch.optim.AdamW, foreach=True),
    **{
        change.__name__: change
        for change in (
            in_place,
            under_inference_mode,
            foreach,
            data_assigned,
            detached,
            from_vector,
            state_dict_in_place,
            load,
            load_assign,
            load_part,
            new_parameter,
            init_weights,
            through_the_module,
            nn_init,
            while_at_another_width,
            while_training,
        )
    },
}


# While the model stays in evaluation these are seen after `refresh()`, which train() and eval() do, too.
UNCOUNTED: dict[str, Change] = {
    'sgd_fused': step(torch.optim.SGD, fused=True),
    'adamw_fused': step(torch.optim.AdamW, fused=True),
    **{
        change.__name__: change
        for change in (
            data_in_place,
            data_by_index,
            data_held,
            data_assigned_then_written,
            apply_init,
            data_through_the_module,
        )
    },
}


def refreshed(change: Change, how: str) -> Change:
    def changed(model: Any) -> None:
        change(model)
        getattr(model, how)()

    return changed


SEEN = {**CHANGES, **{name: refreshed(change, 'refresh') for name, change in UNCOUNTED.items()}}


@pytest.mark.parametrize('change', SEEN)
def test_a_changed_weight_is_served(model: Any, change: str) -> None:
    x = images()
    before = predict(model, x)
    stored = parameter(model).detach().clone()
    SEEN[change](model)
    assert not torch.equal(parameter(model).detach(), stored)
    assert_far_from(predict(model, x), before)
    assert_fresh(model)
    for width in (1.0, 0.5):  # what was written is in the parameter, not in a copy
        model.set_width(width)
        assert_fresh(model)


@pytest.mark.parametrize('member', [CONVNEXT, EFFICIENTNET], ids=lambda m: m.name)
@pytest.mark.parametrize('change', ['adamw_fused', 'foreach', 'from_vector'])
def test_a_changed_weight_is_served_by_every_family(member: Member, change: str) -> None:
    model, x = member.create(width=0.5), images()
    before = predict(model, x)
    SEEN[change](model)
    assert_far_from(predict(model, x), before)
    assert_fresh(model, member)


@pytest.mark.parametrize('change', ['sgd_fused', 'data_in_place'])
def test_eval_sees_what_torch_does_not_count(model: Any, change: str) -> None:
    before = predict(model, images())
    refreshed(UNCOUNTED[change], 'eval')(model)
    assert_far_from(predict(model, images()), before)
    assert_fresh(model)


def test_an_address_that_is_used_again_is_not_taken_for_the_old_storage(model: Any) -> None:
    """Twice `.data = `: the second storage may lie where that of the copies' source lay."""
    for factor in (2, 3, 4):
        parameter(model).data = parameter(model).data * factor
        parameter(model).data = parameter(model).data * factor
        assert_fresh(model)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.half])
def test_conversion(model: Any, dtype: torch.dtype) -> None:
    parameter(model).data  # noqa: B018  an alias of the old storage must not outlive it
    model.to(dtype)
    assert parameter(model).dtype is dtype
    assert_fresh(model)
    assert parameter(model).data.dtype is dtype
    before = predict(model, images().to(dtype))
    data_in_place(model)
    model.refresh()
    assert not torch.equal(predict(model, images().to(dtype)), before)
    assert_fresh(model)
    model.float()
    assert_fresh(model)


def test_conversion_by_swapping(model: Any) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
        assert_fresh(model)
        load(model)
        assert_fresh(model)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_deep_copies_are_independent(model: Any) -> None:
    x = images()
    before = predict(model, x)
    twin = copy.deepcopy(model)
    assert twin.width == 0.5
    assert {type(p) for p in twin.parameters()} == {nn.Parameter}
    assert torch.equal(predict(twin, x), before)
    for change in (refreshed(data_in_place, 'refresh'), in_place):
        change(twin)
        assert_fresh(twin)
        assert torch.equal(predict(model, x), before)
    twin.set_width(0.25)
    assert (model.width, twin.width) == (0.5, 0.25)
    assert model.num_features != twin.num_features
    in_place(model)
    assert_fresh(model)
    assert_fresh(twin)


@pytest.mark.parametrize('how', ['pickle', 'torch.save'])
def test_pickles_are_independent(model: Any, how: str) -> None:
    x = images()
    before = predict(model, x)
    buffer = io.BytesIO()
    if how == 'pickle':
        pickle.dump(model, buffer)
        size = len(buffer.getvalue())
        assert size < 1.2 * sum(t.nbytes for t in model.state_dict().values())  # no copies in it
        twin = pickle.loads(buffer.getvalue())
    else:
        torch.save(model, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    assert twin.width == 0.5
    assert {type(p) for p in twin.parameters()} == {nn.Parameter}
    assert not any(vars(p) for p in twin.parameters())
    assert torch.equal(predict(twin, x), before)
    in_place(twin)
    assert_fresh(twin)
    assert torch.equal(predict(model, x), before)


def test_a_state_dict_holds_plain_tensors_of_the_live_weights(model: Any) -> None:
    state = model.state_dict()
    assert {type(tensor) for tensor in state.values()} == {Tensor}
    assert state[KEY].data_ptr() == parameter(model).data_ptr()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize('foreach', [True, False])
def test_ema_in_evaluation_follows_its_model(original: Any, foreach: bool) -> None:
    model = copy.deepcopy(original).train()
    ema = ModelEmaV3(model, decay=0.5, foreach=foreach)
    sfsc_timm.set_width(ema, 0.5)
    x = images()
    for _ in range(2):
        before = predict(ema.module, x)
        assert copies(ema.module)
        step(torch.optim.SGD)(model)
        ema.update(model)
        assert_far_from(predict(ema.module, x), before)
        assert_fresh(ema.module)
    ema.set(model)
    assert_fresh(ema.module)
    assert all(torch.equal(a, b) for a, b in zip(ema.module.state_dict().values(), model.state_dict().values()))  # noqa: B905


def test_averaged_model(original: Any) -> None:
    model = copy.deepcopy(original)
    average = torch.optim.swa_utils.AveragedModel(model).eval()
    sfsc_timm.set_width(average, 0.5)
    average.update_parameters(model)
    predict(average, images())
    in_place(model)
    average.update_parameters(model)
    assert_fresh(average.module)


@pytest.mark.parametrize('reduce', [True, False])
def test_distribute_bn_on_a_model_already_in_evaluation(
    model: Any, reduce: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collective(tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        tensor.numpy()[:] = 0.9 * tensor.numpy() + 0.3  # as a collective, it writes behind autograd's back

    monkeypatch.setattr(torch.distributed, 'all_reduce', collective)
    monkeypatch.setattr(torch.distributed, 'broadcast', collective)
    x = images()
    before = predict(model, x)
    distribute_bn(model, world_size=1, reduce=reduce)
    assert_far_from(predict(model, x), before)
    assert_fresh(model)


def write_in_place(statistics: Tensor) -> None:
    statistics.mul_(1.5)


def write_data_in_place(statistics: Tensor) -> None:
    statistics.data.mul_(1.5)


def write_data(statistics: Tensor) -> None:
    statistics.data = statistics.data * 1.5


@pytest.mark.parametrize('write', [write_in_place, write_data_in_place, write_data])
def test_written_statistics_are_served(model: Any, write: Callable[[Tensor], None]) -> None:
    x = images()
    before = predict(model, x)
    for name, statistics in model.named_buffers():
        if name.endswith('running_var'):
            write(statistics)
    assert_far_from(predict(model, x), before)
    assert_fresh(model)


def test_reestimated_statistics_are_served(model: Any) -> None:
    """Training mode for the norms alone, as when statistics are estimated anew after training."""
    x = images()
    before = predict(model, x)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    for _ in range(2):
        predict(model, images(batch=8))
    for norm in norms:
        norm.eval()
    assert_far_from(predict(model, x), before)
    assert_fresh(model)


def test_replaced_modules_are_served(model: Any) -> None:
    x = images()
    other = RESNET.create(width=0.5)
    model.layer2 = other.layer2
    model.layer3[0] = other.layer3[0]
    assert_fresh(model)
    model.reset_classifier(10)
    assert_fresh(model)
    model.fc = nn.Linear(256, 10)
    assert_fresh(model)
    before = predict(model, x)
    in_place(model)
    assert_far_from(predict(model, x), before)
    assert_fresh(model)


def test_switching_back_and_forth(model: Any) -> None:
    for width in (0.5, 0.25, 1.0, 0.75, 0.25, 0.25, 0.5):
        model.set_width(width)
        assert_fresh(model)


def test_freezing_and_unfreezing(model: Any) -> None:
    x = images()
    expected = predict(model, x)
    model.requires_grad_(False)
    assert_close_to(model(x), expected)
    model.requires_grad_(True)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert_close_to(predict(model, x), expected)


def test_training_and_evaluation_alternate(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        model.train()
        model(images(batch=4)).square().mean().backward()
        optimizer.step()
        model.eval()
        assert_fresh(model)


def test_hidden_writes_need_a_refresh(model: Any) -> None:
    """The one thing that torch cannot see; the docstring of `refresh` says so."""
    parameter(model).detach().numpy()[:] *= 2
    model.refresh()
    assert_fresh(model)


def test_the_copies_are_made_once(model: Any) -> None:
    first = copies(model)
    with torch.inference_mode():
        model(images())
    again = copies(model)
    assert len(first) == len(again) > 3
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert all(w.is_contiguous() for w in first)


def test_copies_made_under_inference_mode_serve_autograd() -> None:
    model = RESNET.create(width=0.5).requires_grad_(False)
    with torch.inference_mode():
        model(images())
    x = images().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_only_the_active_widths_copies_are_kept(model: Any) -> None:
    before: list[weakref.ref[Tensor]] = []
    for width in (0.5, 0.25, 0.75, 1.0):
        model.set_width(width)
        assert all(ref() is None for ref in before)
        now = copies(model)
        narrow = sum(p.nbytes for p in model.extract().parameters())
        assert sum(w.nbytes for w in now) <= (narrow if width < 1.0 else 0)
        assert bool(now) == (width < 1.0)
        before = [weakref.ref(w) for w in now]
        del now


def test_training_keeps_nothing_and_leaves_plain_parameters(model: Any) -> None:
    kept = [weakref.ref(w) for w in copies(model)]
    assert all(ref() is not None for ref in kept)
    model.train()
    assert all(ref() is None for ref in kept)
    assert {type(p) for p in model.parameters()} == {nn.Parameter}
    assert not any(vars(p) for p in model.parameters())
    model(images())
    assert not copies(model)


def test_functional_call_uses_the_tensors_it_is_given(model: Any) -> None:
    x = images()
    before = predict(model, x)
    scaled = {name: p.detach() * 1.5 for name, p in model.named_parameters()}
    with torch.no_grad():
        called = torch.func.functional_call(model, scaled, (x,))
    assert torch.equal(predict(model, x), before)
    other = copy.deepcopy(model)
    other.load_state_dict({**model.state_dict(), **scaled})
    assert_close_to(called, logits_by_hand(RESNET, other, x))


@pytest.mark.parametrize('kind', ['weight', 'bias', 'running_mean', 'running_var', 'conv1.weight', 'neck.proj.weight'])
def test_functional_call_with_some_of_the_tensors(model: Any, kind: str) -> None:
    x, state = images(), model.state_dict()
    before = predict(model, x)
    some = {k: t * 1.5 + 0.1 for k, t in state.items() if k.endswith(kind) and t.is_floating_point()}
    with torch.no_grad():
        called = torch.func.functional_call(model, some, (x,))
    other = copy.deepcopy(model)
    other.load_state_dict({**state, **some})
    assert_far_from(called, before)
    assert_close_to(called, logits_by_hand(RESNET, other, x))
    assert torch.equal(predict(model, x), before)


def test_function_transforms(model: Any) -> None:
    x = images()
    before = predict(model, x)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    got = torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)).square().sum())(parameters)
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad)
    stacked = {name: torch.stack([p, 2 * p]) for name, p in parameters.items()}
    with torch.no_grad():
        both = torch.func.vmap(lambda p: torch.func.functional_call(model, p, (x,)))(stacked)
    assert_close_to(both[0], before)
    assert_far_from(both[1], before)
    model.requires_grad_(False)
    saliency = torch.func.grad(lambda x: model(x).sum())(x)
    assert saliency.abs().sum() > 0
    assert torch.equal(predict(model, x), before)


def test_fake_tensors_leave_nothing_behind(model: Any) -> None:
    x = images()
    before = predict(model, x)
    model.set_width(0.25)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert model(torch.empty(2, 3, 32, 32)).shape == before.shape
    assert_fresh(model)
    model.set_width(0.5)
    assert torch.equal(predict(model, x), before)


def test_a_model_made_under_inference_mode() -> None:
    with torch.inference_mode():
        model = RESNET.create(width=0.5)
        x = images()
        before = model(x)
        parameter(model).mul_(2)
        after = model(x)
        assert_far_from(after, before)
        assert_close_to(after, logits_by_hand(RESNET, model, x))


def shadowing(model: Any) -> list[str]:
    """What a forward has put before the readers of any module."""
    return [name for child in model.modules() for name in ('weight', 'running_mean') if name in vars(child)]


def test_the_tensors_are_in_place_for_a_forward_only(model: Any) -> None:
    seen: list[list[str]] = []
    handle = model.layer2.register_forward_hook(lambda *_: seen.append(shadowing(model)))
    predict(model, images())
    handle.remove()
    assert {'weight', 'running_mean'} == set(seen[0])
    assert not shadowing(model)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.layer2.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        predict(model, images())
    handle.remove()
    assert not shadowing(model)
    assert_fresh(model)


def test_a_forward_that_a_user_puts_on_a_module_is_called_and_stays(model: Any) -> None:
    """As accelerate, profilers and quantisers do."""
    conv = model.layer1[0].conv1
    calls: list[tuple[int, ...]] = []
    original = conv.forward

    def forward(x: Tensor) -> Tensor:
        calls.append(tuple(conv.weight.shape))
        return original(x)

    conv.forward = forward
    for width in (0.25, 0.5, 1.0):
        model.set_width(width)
        assert_fresh(model)
    assert vars(conv)['forward'] is forward
    assert [shape[0] for shape in calls] == [8, 8, 8, 8, 16, 16]
    model.train()
    model(images())
    assert len(calls) == 7


def test_a_hook_may_run_another_width_in_the_middle_of_a_forward(model: Any) -> None:
    x, inner = images(), []
    expected = predict(model, x)
    with model.at_width(1.0):
        wanted = predict(model, x)

    def compare(*_: Any) -> None:
        if model.width == 0.5:
            with model.at_width(1.0):
                inner.append(predict(model, x))

    handle = model.layer2.register_forward_hook(compare)
    assert_close_to(predict(model, x), expected)
    handle.remove()
    assert_close_to(inner[0], wanted)
    assert not shadowing(model)
    assert_fresh(model)


def test_every_way_to_run_a_model_runs_on_copies(model: Any) -> None:
    expected = len(copies(model))
    assert len(copies(model, model.embed)) == expected
    features = copies(model, model.forward_features)
    assert len(features) == expected - 1
    assert len(copies(model, model.forward_intermediates)) == len(features)
    with torch.no_grad():
        last = model.forward_features(images())
    assert not copies(model, lambda _: model.forward_head(last))  # alone it is as fast on views


@pytest.mark.parametrize('kind', ['list', 'dict', 'hook', 'getter'])
@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=lambda m: m.name)
def test_features_only_runs_on_copies(member: Member, kind: str) -> None:
    torch.manual_seed(0)
    options = {'feature_cls': kind} if kind != 'list' else {}
    model = timm.create_model(member.name, features_only=True, **options, **member.kwargs).eval()
    sfsc_timm.set_width(model, 0.5)
    first = copies(model)
    assert len(first) > 3
    assert all(a is b for a, b in zip(first, copies(model), strict=True))
    x = images()
    before = maps(model, x)
    assert all(map(torch.equal, before, maps(copy.deepcopy(model), x)))
    assert all(map(torch.equal, before, maps(pickle.loads(pickle.dumps(model)), x)))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    assert_far_from(maps(model, x)[-1], before[-1])
    sfsc_timm.set_width(model, 1.0)
    assert not copies(model)


def maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    found: Any = predict(model, x)
    return list(found.values()) if isinstance(found, dict) else found


def test_a_part_in_training_keeps_its_own_forward(model: Any) -> None:
    model.layer1.train()
    before = model.layer1[0].bn1.running_mean.clone()
    predict(model, images())
    assert_far_from(model.layer1[0].bn1.running_mean, before)
    model.layer1.eval()
    assert_fresh(model)
