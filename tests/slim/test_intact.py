"""What changes a module for one width only is refused by name at the next switch, with the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.zoo import RESNET, assert_close_to, images, predict
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.utils.model import freeze, unfreeze
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class LoraConv2d(nn.Module):
    """What peft's lora.Conv2d is: the layer, and two more whose sizes are those that the layer has now."""

    def __init__(self, base_layer: Any, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base_layer
        outputs, inputs, *kernel = base_layer.weight.shape
        self.lora_A = nn.ModuleDict(
            {'default': nn.Conv2d(inputs, rank, tuple(kernel), base_layer.stride, base_layer.padding, bias=False)}
        )
        self.lora_B = nn.ModuleDict({'default': nn.Conv2d(rank, outputs, 1, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B['default'](self.lora_A['default'](x))


class Counting(nn.Module):
    """Nothing in it has a size."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer, self.calls = base_layer, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.base_layer(x)


def put_back(model: Any) -> None:
    """What offloading does to a tensor: reads it, and puts what it read in its place."""
    norm = model.layer1[0].bn1
    norm._buffers['running_mean'] = norm.running_mean.clone()


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    'freeze': (lambda m: freeze(m, ['layer1']), r'layer1\.0\.bn1 must be the norm'),
    'freeze and unfreeze': (lambda m: (freeze(m, ['layer1']), unfreeze(m, ['layer1'])), r'layer1\.0\.bn1 must be'),
    'frozen norms': (lambda m: setattr(m, 'layer2', freeze_batch_norm_2d(m.layer2)), r'layer2\.0\.bn1 must be'),
    'parametrization': (
        lambda m: parametrize.register_parametrization(m.layer1[0].conv1, 'weight', Double()),
        r'layer1\.0\.conv1\.weight must be a tensor of the model',
    ),
    'weight norm': (lambda m: parametrizations.weight_norm(m.layer1[0].conv1), r'layer1\.0\.conv1\.weight must be'),
    'pruning': (
        lambda m: prune.l1_unstructured(m.layer1[0].conv1, 'weight', amount=0.5),
        r'layer1\.0\.conv1\.weight must be',
    ),
    'adapter': (
        lambda m: setattr(m.layer1[0], 'conv1', LoraConv2d(m.layer1[0].conv1)),
        r'layer1\.0\.conv1 must be the layer .* got a LoraConv2d around it, whose lora_A\.default\.weight has the size',
    ),
    'offloading': (put_back, r'layer1\.0\.bn1\.running_mean must hold all widths, .* got .* put back'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_a_change_for_one_width_is_refused_at_the_switch(name: str) -> None:
    change, message = CHANGES[name]
    model, x = RESNET.create(), images()
    change(model)
    expected = None if name == 'offloading' else predict(model, x)
    for _ in range(2):
        with pytest.raises(ValueError, match=message + r'.*model\.extract\(width\)'):
            model.set_width(0.5)
    assert model.width == 1.0
    if expected is None:
        with pytest.raises(ValueError, match=message):
            predict(model, x)
    else:
        assert_close_to(predict(model, x), expected)


@pytest.mark.parametrize('name', CHANGES)
def test_the_way_out_works(name: str) -> None:
    model = RESNET.create().extract(0.5)
    CHANGES[name][0](model)
    assert predict(model, images()).isfinite().all()


def test_a_users_own_parts_stay_allowed() -> None:
    model = RESNET.create()
    model.fc = nn.Sequential(nn.BatchNorm1d(256), nn.Linear(256, 3))
    model.eval()
    model.layer3 = nn.Sequential(nn.Identity(), *model.layer3)
    model.layer2[0].conv1 = Counting(model.layer2[0].conv1)
    model.set_width(0.5)
    assert predict(model, images()).shape == (2, 3)
    assert model.layer2[0].conv1.calls == 1


def test_synchronised_norms_are_refused_before_anything_is_changed() -> None:
    model, x = RESNET.create(), images()
    expected = predict(model, x)
    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm):
        with pytest.raises(TypeError, match="as parameter 'weight'"):
            convert(model)
    model.set_width(0.5)
    model.set_width(1.0)
    assert_close_to(predict(model, x), expected)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(model.extract(0.5)).bn1, nn.SyncBatchNorm)


def test_peft() -> None:
    """The real one: refused at the switch, at home in a model of one width."""
    peft = pytest.importorskip('peft')
    config = peft.LoraConfig(r=2, target_modules=r'layer1.*conv1')
    model = RESNET.create()
    peft.get_peft_model(model, config)
    with pytest.raises(ValueError, match=r'layer1\.0\.conv1 must be the layer .* got a Conv2d around it'):
        model.set_width(0.5)
    assert predict(peft.get_peft_model(RESNET.create().extract(0.5), config), images()).isfinite().all()


def test_accelerate() -> None:
    """The real one: prepared in mixed precision it runs at every width; offloaded it is refused."""
    accelerate = pytest.importorskip('accelerate')
    model, x = RESNET.create(), images()
    expected = {}
    for width in model.widths:
        with model.at_width(width):
            expected[width] = predict(model, x)
    prepared = accelerate.Accelerator(cpu=True, mixed_precision='bf16').prepare(model)
    for width in model.widths:
        prepared.set_width(width)
        found = predict(prepared, x)
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected[width])
        assert (found - expected[width]).norm() < 0.05 * expected[width].norm()
    offloaded = accelerate.cpu_offload(RESNET.create(), execution_device=torch.device('cpu'))
    with pytest.raises(ValueError, match='must hold all widths'):
        offloaded.set_width(0.5)
