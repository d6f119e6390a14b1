"""What leaves PyTorch, or its eager mode: torch.export, ONNX, TorchScript, FX."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import (
    CONVNEXT,
    CONVOLUTIONAL,
    FAMILIES,
    RESNET,
    SKIPS_DIFFER,
    VIT,
    WIDTHS,
    Member,
    assert_close_to,
    assert_far_from,
    channels_of,
    images,
    name_of,
    predict,
)
from timm.models import create_feature_extractor
from torch import Tensor, nn

import sfsc_timm

SMALLEST = (RESNET, CONVNEXT, SKIPS_DIFFER, VIT)


@pytest.fixture(params=SMALLEST, ids=name_of, scope='module')
def model(request: pytest.FixtureRequest) -> Any:
    """One of each family."""
    torch.manual_seed(0)
    return request.param.create()


@pytest.fixture(scope='module')
def programs(model: Any) -> dict[float, Any]:
    """What torch.export has made of the model, by width: it takes seconds."""
    return {}


@pytest.fixture
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def run_onnx(program: Any, x: Tensor, file: Path) -> Tensor:
    """Output of an exported program in ONNX Runtime."""
    runtime = pytest.importorskip('onnxruntime')
    program.save(file)
    session = runtime.InferenceSession(file, providers=['CPUExecutionProvider'])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(output)


@pytest.mark.parametrize('width', WIDTHS)
def test_torch_export(model: Any, width: float, programs: dict[float, Any], dynamo: None) -> None:
    x = images()
    model.set_width(width)
    expected = predict(model, x)
    programs[width] = torch.export.export(model, (x,))
    model.set_width(1.0 if width < 1.0 else 0.5)  # what has been exported does not follow
    assert_close_to(predict(programs[width].module(), x), expected)


@pytest.mark.usefixtures('_quiet')
@pytest.mark.parametrize('width', [0.5, *(pytest.param(width, marks=pytest.mark.slow) for width in (0.25, 0.75, 1.0))])
def test_onnx(model: Any, width: float, programs: dict[float, Any], dynamo: None, tmp_path: Path) -> None:
    """One width from the model itself, the others from what torch.export made of it, which is the exporter's start."""
    pytest.importorskip('onnxscript')
    x = images()
    model.set_width(width)
    traced = None if width == 0.5 else programs.get(width)
    program = torch.onnx.export(*((model, (x,)) if traced is None else (traced,)), dynamo=True, verbose=False)
    assert_close_to(run_onnx(program, x, tmp_path / 'model.onnx'), predict(model, x))


@pytest.mark.usefixtures('_quiet')
def test_a_small_file_needs_a_dense_model(dynamo: None, tmp_path: Path) -> None:
    """An exported slimmable model holds all its weights; that of `extract` holds the width's."""
    pytest.importorskip('onnxscript')
    model, x = RESNET.create(), images()
    dense = model.extract(0.25)
    program = torch.onnx.export(dense, (x,), dynamo=True, verbose=False)
    assert_close_to(run_onnx(program, x, tmp_path / 'dense.onnx'), predict(dense, x))
    assert (tmp_path / 'dense.onnx').stat().st_size < 0.2 * sum(p.nbytes for p in model.parameters()) + 1e5


def test_saved_programs_come_back(dynamo: None) -> None:
    model, x = RESNET.create(width=0.5), images()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), buffer)
    buffer.seek(0)
    assert_close_to(predict(torch.export.load(buffer).module(), x), predict(model, x))


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning', 'ignore:.*torch.jit.*:DeprecationWarning')
def test_torchscript(model: Any, width: float) -> None:
    x = images()
    model.set_width(width)
    expected = predict(model, x)
    scripted = torch.jit.script(model)
    assert_close_to(predict(scripted, x), expected)
    model.set_width(1.0 if width < 1.0 else 0.5)
    assert_close_to(predict(scripted, x), expected)
    assert sum(p.numel() for p in scripted.parameters()) <= sum(p.numel() for p in model.parameters())
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    assert_close_to(predict(torch.jit.load(buffer), x), expected)


@pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning', 'ignore:.*torch.jit.*:DeprecationWarning')
def test_tracing_by_the_old_tracer() -> None:
    model, x = RESNET.create(width=0.5), images()
    expected = predict(model, x)
    traced = torch.jit.trace(model, x)
    model.set_width(0.25)
    assert_close_to(predict(traced, x), expected)


@pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning', 'ignore:.*torch.jit.*:DeprecationWarning')
@pytest.mark.parametrize('member', SMALLEST, ids=name_of)
def test_torchscript_trains(member: Member) -> None:
    """The script of a model in training has its batch statistics, its dropout and its unfolded neck."""
    model, x = member.create(width=0.5).train(), images(batch=4)
    scripted = torch.jit.script(model)
    scripted(x).square().sum().backward()
    assert all(p.grad is not None for p in scripted.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert_close_to(scripted(x).detach(), model(x).detach(), 1e-4)


LAYERS = {'sfsc_resnet18d': 'layer3', 'sfsc_convnext_atto': 'stages.2', 'sfsc_efficientnet_b0': 'blocks.4'}


@pytest.mark.parametrize('member', CONVOLUTIONAL, ids=name_of)
def test_fx_feature_extraction(member: Member) -> None:
    model, x = member.create(), images(size=64)
    layer = LAYERS[member.name]
    outputs: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    for width in WIDTHS:
        model.set_width(width)
        outputs.clear()
        predict(model, x)
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                extractor: Any = create_feature_extractor(model, {layer: 'features'})
            assert_close_to(extractor(x)['features'].detach(), outputs[0])
            assert_close_to(predict(extractor, x)['features'], outputs[0])  # type: ignore[call-overload]


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_fx_graphs_keep_their_width(member: Member) -> None:
    """What the graph has recorded (shortcuts, slices of loose parameters) depends on the width."""
    features: Any = timm.create_model(
        member.name, features_only=True, feature_cls='fx', out_indices=(0, 1), width=0.5, **member.kwargs
    )
    with pytest.raises(ValueError, match=r'an FX graph keeps the width of its tracing, 0\.5, got 0\.25'):
        sfsc_timm.set_width(features, 0.25)
    sfsc_timm.set_width(features, 0.5)
    with sfsc_timm.at_width(features, 0.5):
        assert [channels_of(m) for m in predict(features.eval(), images())] == features.feature_info.channels()  # type: ignore[attr-defined]


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_fx_graphs_train(member: Member) -> None:
    """A graph of the whole model takes the gradients that the model takes."""
    model = member.create(width=0.5).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    graph, x = create_feature_extractor(model, {'fc': 'logits'}), images()
    graph.train(False)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    graph(x)['logits'].square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_the_graph_of_a_changed_weight_is_never_stale() -> None:
    model, x = CONVNEXT.create(width=0.5), images()
    extractor: Any = create_feature_extractor(model, {'head.drop': 'features'})
    before = predict(extractor, x)['features']  # type: ignore[call-overload]
    for parameter in model.stages.parameters():
        parameter.data.mul_(1.5)
    after = predict(extractor, x)['features']  # type: ignore[call-overload]
    assert_far_from(after, before)
    expected = model.extract(0.5)
    expected.head.fc = nn.Identity()
    assert_close_to(after, predict(expected, x))
