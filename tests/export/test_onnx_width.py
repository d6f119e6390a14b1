"""ONNX per width: equal to PyTorch for any batch, small, without traces of this machine, and as int8."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.checkpoints import DATA_CONFIG, paint, save_whole, tiny
from helpers.zoo import CONVNEXT, RESNET, Member, assert_close_to, embed, images

from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.cli.main import main
from sfsc_timm.export import export_onnx, quantise_onnx, run_onnx

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
pytest.importorskip('rich')


@pytest.mark.parametrize('member, width', [(RESNET, 0.25), (CONVNEXT, 0.5)], ids=['resnet18d', 'convnext_atto'])
def test_equal_for_any_batch(
    member: Member, width: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamo: None
) -> None:
    model = member.create(embed_dim=24)
    model.set_width(width)
    path = export_onnx(model.extract(width), tmp_path / 'model.onnx', (3, 32, 32))
    for batch in (1, 2, 5):
        x = images(batch)
        assert_close_to(run_onnx(path, [x]), embed(model, x), 1e-4)
    assert_close_to(run_onnx(path, [x[:2], x[2:]]), embed(model, x), 1e-4)
    content = path.read_bytes()
    assert not any(trace in content for trace in (str(Path(torch.__file__).parents[1]).encode(), b'.py', b'forward('))
    assert len(content) < 4 * sum(p.numel() for p in model.extract(width).parameters()) + 200_000
    assert [file.name for file in tmp_path.iterdir()] == ['model.onnx']
    # what gives another output is not kept
    wrong = onnx.load(path)
    weight = max(wrong.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    stub = SimpleNamespace(model_proto=wrong)
    monkeypatch.setattr(torch.onnx, 'export', lambda *args, **kwargs: stub)
    with pytest.raises(ValueError, match=r'none\.onnx.*: ONNX Runtime gives another output'):
        export_onnx(model.extract(width), tmp_path / 'none.onnx', (3, 32, 32))
    # int8 points the same way
    small = quantise_onnx(path, tmp_path / 'int8.onnx', [images(8)])
    assert small.stat().st_size < len(content)
    assert torch.cosine_similarity(run_onnx(small, [x]), embed(model, x)).min() > 0.98


def by_hand(path: Path, steps: list[dict[str, Any]]) -> torch.Tensor:
    """What preprocessing.json says, by Pillow alone."""
    import numpy as np
    from PIL import Image

    resize, crop, scale, normalise = (next(iter(step.values())) for step in steps)
    image: Any = Image.open(path).convert('RGB')
    ratio = resize['shorter_side'] / min(image.size)
    method = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}[resize['interpolation']]
    image = image.resize((int(image.width * ratio), int(image.height * ratio)), method)
    height, width = crop['size']
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) * scale
    values = (pixels - np.float32(normalise['mean'])) / np.float32(normalise['std'])
    return torch.from_numpy(values).permute(2, 0, 1)


def test_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], dynamo: None) -> None:
    checkpoint, photos = save_whole(tiny(), tmp_path / 'whole'), paint(tmp_path / 'photos', 4, size=48)
    arguments = ['export', str(checkpoint), '--output', str(tmp_path / 'onnx'), '--widths', '0.25', '--int8']
    data = ['--data', 'folder', '--data-dir', str(tmp_path / 'photos'), '--data-kwargs', 'train_share=0.3']
    assert main([*arguments, *data, '--crop-pct', '0.8']) == 0
    assert 'int8 query' in capsys.readouterr().out
    folder = tmp_path / 'onnx' / 'w0.25'
    assert sorted(file.name for file in folder.iterdir()) == [
        'int8.json', 'model.int8.onnx', 'model.onnx', 'preprocessing.json',
    ]  # fmt: skip
    measured = json.loads((folder / 'int8.json').read_text())
    assert measured['mAP loss'] == pytest.approx(measured['mAP float'] - measured['mAP int8'])
    assert 0 < measured['mAP int8 query'] <= 100
    stated = json.loads((folder / 'preprocessing.json').read_text())
    loaded = load_checkpoint_model(checkpoint)
    assert stated['compatibility'] == loaded.compatibility
    assert stated['input']['shape'] == ['batch', 3, 32, 32]
    ours = by_hand(photos[0], stated['steps'])
    from PIL import Image

    expected = loaded.preprocessing.changed(crop_pct=0.8).transform()
    assert_close_to(ours, expected(Image.open(photos[0]).convert('RGB')), 1e-2)
    assert DATA_CONFIG['mean'] == loaded.preprocessing.mean


def test_export_command_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(save_whole(tiny(), tmp_path / 'whole'))
    for arguments, message in (
        (['--data', 'glyphs'], 'add --int8'),
        (['--widths', '0.3'], 'asked for were (0.3,)'),
        (['--flip'], 'no exported model does; leave it out'),
        (['--data-dir', 'photos'], 'are of a data set, got no --data'),
    ):
        assert main(['export', checkpoint, '--output', str(tmp_path / 'onnx'), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'onnx').exists()
