"""torch.compile: one static graph per width and mode, and never more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    CONVNEXT,
    DINOV3,
    MOBILENET,
    RESNET,
    SKIPS_DIFFER,
    VIT,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    images,
    name_of,
    predict,
)
from torch import Tensor, nn

import sfsc_timm
from sfsc_timm.slim import densify, slim


class Graphs:
    """A backend that runs graphs as they are and keeps count of them."""

    def __init__(self) -> None:
        self.count = 0
        self.symbolic = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.count += 1
        self.symbolic |= any(isinstance(i, torch.SymInt) for i in inputs)
        return graph.forward


def frozen_norms(model: Any) -> Any:
    """In training, so that gradients are taken, but a forward leaves no trace in the statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    return model


@pytest.mark.parametrize(
    'member', [RESNET, *(pytest.param(m, marks=pytest.mark.slow) for m in (MOBILENET, VIT, DINOV3))], ids=name_of
)
def test_one_graph_per_width_and_mode(member: Member, dynamo: None) -> None:
    """Eight pairs, past the default limit of 8 recompilations; going round again adds none and never runs eager."""
    model, graphs = member.create(), Graphs()
    x = images(batch=4)
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    expected = {}
    for width in WIDTHS:
        model.set_width(width)
        expected[width] = predict(model, x)
    modes = [(width, training) for training in (False, True) for width in WIDTHS]
    for number, (width, training) in enumerate(modes, start=1):
        sfsc_timm.set_width(compiled, width)
        compiled.train(training)
        if training:
            compiled(x).sum().backward()
        else:
            assert_close_to(predict(compiled, x), expected[width])
        assert graphs.count == number
    compiled.eval()
    before = predict(compiled, x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for width, training in (*modes, *reversed(modes)):
            sfsc_timm.set_width(compiled, width)
            compiled.train(training)
            if training:
                compiled(x).sum().backward()
            else:
                predict(compiled, x)
    assert graphs.count == len(modes)
    assert not graphs.symbolic
    compiled.eval()
    model.set_width(1.0)
    if any(name.endswith('running_mean') for name, _ in model.named_buffers()):
        assert_far_from(predict(compiled, x), before)  # training moved the statistics, and the graph reads them
    assert_close_to(predict(compiled, x), predict(model, x))


def small() -> nn.Module:
    """Three layers, for what does not depend on the architecture."""

    def build(width: float) -> nn.Module:
        size = int(8 * width)
        return nn.Sequential(nn.Linear(3, size), nn.BatchNorm1d(size), nn.Linear(size, 2 * size))

    model = build(1.0)
    slim(model, [build(w) for w in WIDTHS[:-1]], WIDTHS)
    return model.eval()


def test_eager_forwards_in_between(dynamo: None) -> None:
    """They add no graph after the first round, and in it there are at most three for each width.

    That is more than the 8 that torch.compile allows by default; `fullgraph` would not let it go eager.
    """
    model, graphs, x = small(), Graphs(), torch.randn(4, 3)
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    counts = []
    for _ in range(3):
        for width in WIDTHS:
            sfsc_timm.set_width(compiled, width)
            compiled.train()(x)
            compiled.eval()
            predict(compiled, x)
            assert_close_to(predict(compiled, x), predict(model, x))
            predict(compiled, x)
        counts.append(graphs.count)
    assert counts[0] == counts[-1] <= 3 * len(WIDTHS)


@pytest.mark.parametrize('member', [CONVNEXT, SKIPS_DIFFER, VIT], ids=name_of)
@pytest.mark.parametrize('widths', [(0.5,), pytest.param((0.25, 0.75, 1.0), marks=pytest.mark.slow)], ids=str)
def test_every_family_compiles_at_every_width(member: Member, widths: tuple[float, ...], dynamo: None) -> None:
    model, graphs = frozen_norms(member.create()), Graphs()
    x = images()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for width in widths:
        sfsc_timm.set_width(compiled, width)
        model(x).square().sum().backward()
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        output = compiled(x)
        output.square().sum().backward()
        assert_close_to(output.detach(), predict(model, x))
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)
        model.zero_grad()
    assert graphs.count == len(widths)


def test_a_changed_weight_is_served(dynamo: None) -> None:
    model, x = small(), torch.randn(4, 3)
    sfsc_timm.set_width(model, 0.5)
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    before = predict(compiled, x)
    for write in (
        lambda p: p.data.mul_(2),
        lambda p: p.detach().mul_(2),
        lambda p: p.detach().numpy().__imul__(2),
        lambda p: setattr(p, 'data', p.data * 2),
    ):
        predict(model, x)
        write(dict(model.named_parameters())['2.weight'])
        after = predict(compiled, x)
        assert_far_from(after, before)
        assert_close_to(after, predict(densify(model), x))
        before = after


@pytest.mark.slow
def test_gradient_checkpointing_compiles(dynamo: None) -> None:
    model, x = frozen_norms(RESNET.create(width=0.5)), images()
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    compiled(x).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_the_limit_grows_with_the_number_of_widths(dynamo: None) -> None:
    """Past its limit torch.compile goes on eager in silence."""
    limit = torch._dynamo.config.recompile_limit
    RESNET.create().set_width(0.25)
    assert torch._dynamo.config.recompile_limit >= 2 * len(WIDTHS) + limit
    torch._dynamo.config.recompile_limit = 1000
    RESNET.create().set_width(0.25)
    assert torch._dynamo.config.recompile_limit == 1000


@pytest.mark.slow
def test_inductor(dynamo: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real compiler, in evaluation and training; of the stem, since each kernel takes seconds."""
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr('torch._inductor.config.compile_threads', 1)  # its workers would import torch first
    model: Any = timm.create_model(RESNET.name, features_only=True, out_indices=(0,), **RESNET.kwargs).eval()
    x = images(size=16)
    compiled = torch.compile(model, fullgraph=True)
    for width in (0.5, 1.0):
        sfsc_timm.set_width(compiled, width)
        assert_close_to(predict(compiled, x)[0], predict(model, x)[0])  # type: ignore[arg-type]
    frozen_norms(model)
    sfsc_timm.set_width(compiled, 0.5)
    model(x)[0].square().sum().backward()
    expected: list[Tensor] = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    compiled(x)[0].square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)
