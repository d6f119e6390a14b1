"""int8 by ranges from images: which operators stay in float, what is chosen, and that it points the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.zoo import RESNET, assert_close_to, embed, images

from sfsc_timm.export import (
    export_half,
    export_onnx,
    first_images,
    float_candidates,
    quantise_fastest,
    quantise_onnx,
    run_onnx,
)
from sfsc_timm.export.int8 import fastest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """A file for images of any size, some images, and what the model says of them."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = RESNET.create(embed_dim=24)
    model.set_width(0.5)
    dense = model.extract(0.5)
    path = export_onnx(dense, tmp_path_factory.mktemp('onnx') / 'model.onnx', (3, 32, 32), opset=18, dynamic_size=True)
    x = images(4)
    return path, x, embed(model, x)


def test_any_size_and_the_opset_that_was_asked_for(exported: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    path, x, expected = exported
    assert_close_to(run_onnx(path, [x]), expected, 1e-4)
    assert run_onnx(path, [torch.zeros(2, 3, 64, 96)]).shape == (2, 24)
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import} == {'': 18}


def test_what_stays_in_float(exported: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    path, x, expected = exported
    choices = float_candidates(path)
    nodes = [node.name for node in onnx.load(path).graph.node]
    assert next(iter(choices)) == 'last layer'
    assert choices['last layer'] == (nodes[-1],)
    sizes = []
    for names in choices.values():
        assert set(names) <= set(nodes)
        file = quantise_onnx(path, tmp_path / 'int8.onnx', [x], names)
        kinds = [node.op_type for node in onnx.load(file).graph.node]
        sizes.append(kinds.count('QuantizeLinear'))
        assert torch.cosine_similarity(run_onnx(file, [x]), expected).min() > 0.98
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    # unsigned activations, and signed weights of 7 bits for each channel, whose pairs of products fit into 16 bits
    proto = onnx.load(quantise_onnx(path, tmp_path / 'int8.onnx', [x]))
    weights = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith('weight_quantized')]
    assert weights
    assert all(weight.dtype == 'int8' and abs(weight.astype(int)).max() <= 64 for weight in weights)
    zeros = {t.data_type for t in proto.graph.initializer if t.name.endswith('_zero_point') and 'weight' not in t.name}
    assert onnx.TensorProto.UINT8 in zeros
    assert onnx.TensorProto.INT8 not in zeros


def test_the_fastest_is_kept(exported: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    path, x, expected = exported
    told = quantise_fastest(path, tmp_path / 'int8.onnx', [x], repeats=2)
    assert told['float_layers'] in float_candidates(path)
    assert told['milliseconds'].keys() == {'float', *float_candidates(path)}
    assert torch.cosine_similarity(run_onnx(tmp_path / 'int8.onnx', [x]), expected).min() > 0.98
    assert fastest({'a': 1.0, 'b': 0.99}) == 'a'  # within the noise, the one with more operators in int8
    assert fastest({'a': 1.0, 'b': 0.8, 'c': 0.79}) == 'b'
    with pytest.raises(ValueError, match='images must hold at least one batch, got none'):
        quantise_fastest(path, tmp_path / 'none.onnx', [])
    with pytest.raises(ValueError, match='images must hold at least one batch, got none'):
        quantise_onnx(path, tmp_path / 'none.onnx', [])
    assert not (tmp_path / 'none.onnx').exists()


def test_half_precision(exported: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    path, x, expected = exported
    half = export_half(path, tmp_path / 'half.onnx')
    assert_close_to(run_onnx(half, [x]), expected, 1e-2)
    assert half.stat().st_size < 0.6 * path.stat().st_size


def test_first_images() -> None:
    found = first_images([torch.zeros(20, 3, 2, 2), torch.ones(20, 3, 2, 2)], 25)
    assert [len(batch) for batch in found] == [16, 9]
    assert found[1].sum() == 5 * 12
