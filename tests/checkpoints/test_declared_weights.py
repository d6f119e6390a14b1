"""Ids of the metric space and of the weights of a width, which are believed only if they are the declared ones."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.checkpoints import save_training, tiny
from safetensors.torch import load_file, save_file

from sfsc_timm.checkpoints import (
    compatibility_id,
    load_checkpoint_model,
    save_model,
    save_width,
    save_widths,
    space_id,
    weights_digest,
)
from sfsc_timm.hub import load_width

WEIGHTS = 'model.safetensors'


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and the folder in which it lies, whole, in widths, and as training leaves it."""
    torch.set_num_threads(1)
    root, model = tmp_path_factory.mktemp('saved'), tiny()
    save_model(model, root / 'whole')
    save_widths(model, root / 'widths')
    save_training(model, root / 'last.pth.tar')
    return model, root


def refitted(width: float) -> Any:
    """The model with other statistics at one width."""
    model = tiny()
    with torch.no_grad(), model.at_width(width):
        model.train()(torch.rand(4, 3, 32, 32))
    return model.eval()


def change_section(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / 'config.json'
    config = json.loads(file.read_text())
    change(config['sfsc'])
    file.write_text(json.dumps(config))


def of_before(folder: Path) -> Path:
    """Makes it what earlier versions wrote."""
    change_section(folder, lambda section: [section.pop(key) for key in ('space', 'digests', 'weights')])
    return folder


def test_the_space_stays_when_another_width_is_refitted() -> None:
    model, other = tiny(), refitted(0.25)
    assert space_id(other) == space_id(model)
    assert compatibility_id(other) != compatibility_id(model)
    digests = [{width: weights_digest(each, width) for width in each.widths} for each in (model, other)]
    assert {width for width in model.widths if digests[0][width] != digests[1][width]} == {0.25}
    assert len(set(digests[0].values())) == 4
    assert space_id(refitted(1.0)) != space_id(model)
    assert space_id(tiny(1)) != space_id(model)


def test_the_space_stays_when_a_width_is_added() -> None:
    model, wider = tiny(), tiny(1, widths=(0.125, 0.25, 0.5, 0.75, 1.0))
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in wider.state_dict().items():
            tensor[-len(state[name]) :].copy_(state[name])  # what every width owns lies width by width, ascending
    assert space_id(wider) == space_id(model)
    for width in model.widths:
        assert weights_digest(wider, width) == weights_digest(model, width)


def test_neither_id_depends_on_classifier_or_active_width() -> None:
    model, other = tiny(), tiny()
    other.reset_classifier(3)
    other.set_width(0.25)
    assert space_id(other) == space_id(model)
    assert weights_digest(other, 0.5) == weights_digest(model, 0.5)
    assert other.width == 0.25


def test_every_form_of_a_checkpoint_says_the_same(saved: tuple[Any, Path]) -> None:
    model, root = saved
    for name in ('whole', 'widths', 'widths/w0.25', 'widths/w1', 'last.pth.tar', f'whole/{WEIGHTS}'):
        checkpoint = load_checkpoint_model(root / name)
        assert (checkpoint.space, checkpoint.compatibility) == (space_id(model), compatibility_id(model)), name
        for width in checkpoint.widths:
            assert checkpoint.digest(width) == weights_digest(model, width), name


def test_a_plain_timm_model_is_its_own_reference(tmp_path: Path) -> None:
    model = timm.create_model('resnet10t', num_classes=4)
    torch.save(model.state_dict(), tmp_path / 'plain.pth')
    checkpoint = load_checkpoint_model(tmp_path / 'plain.pth', model='resnet10t', model_kwargs={'num_classes': 4})
    model.reset_classifier(0)
    assert checkpoint.space == space_id(model)
    assert checkpoint.digest(1.0) == weights_digest(model)


def swap(weights: Path) -> None:
    """Weights of another model of the same shapes."""
    torch.manual_seed(1)
    save_file(
        {k: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for k, t in load_file(weights).items()}, weights
    )


def perturb(weights: Path) -> None:
    state = load_file(weights)
    next(tensor for tensor in state.values() if tensor.is_floating_point()).view(-1)[0] += 1e-3
    save_file(state, weights)


def halve(weights: Path) -> None:
    save_file({k: t.half() if t.is_floating_point() else t for k, t in load_file(weights).items()}, weights)


@pytest.mark.parametrize('name', ['whole', 'widths/w0.5'])
@pytest.mark.parametrize('change', [swap, perturb, halve])
def test_other_weights_beside_the_config_are_refused(
    saved: tuple[Any, Path], tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / 'copy'
    shutil.copytree(saved[1] / name, folder)
    change(folder / WEIGHTS)
    for load in (load_checkpoint_model, lambda source: load_width(source, 0.5)):
        with pytest.raises(ValueError, match=r"copy/model\.safetensors' holds other weights than the config\.json"):
            load(folder)


def test_a_width_swapped_for_that_of_another_model_is_refused(saved: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(saved[1] / 'widths', tmp_path / 'widths')
    save_width(tiny(1), 0.5, tmp_path / 'widths/w0.5')
    with pytest.raises(ValueError, match='are not the widths of one model'):
        load_checkpoint_model(tmp_path / 'widths')
    other = refitted(0.5)
    save_width(other, 0.5, tmp_path / 'widths/w0.5')  # fitted again, to the same reference
    checkpoint = load_checkpoint_model(tmp_path / 'widths')
    assert checkpoint.space == space_id(saved[0])
    assert checkpoint.digest(0.5) == weights_digest(other, 0.5) != weights_digest(saved[0], 0.5)
    assert checkpoint.digest(0.25) == weights_digest(saved[0], 0.25)


def test_a_whole_model_of_before_is_believed_by_the_id_of_its_weights(saved: tuple[Any, Path], tmp_path: Path) -> None:
    """And that id is its space's: so it goes on with widths and galleries of before."""
    model, root = saved
    shutil.copytree(root / 'whole', tmp_path / 'whole')
    folder = of_before(tmp_path / 'whole')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        checkpoint = load_checkpoint_model(folder)
    assert checkpoint.space == checkpoint.compatibility == compatibility_id(model)
    perturb(folder / WEIGHTS)
    with pytest.raises(ValueError, match='holds other weights than'):
        load_checkpoint_model(folder)


def test_a_width_of_before_is_taken_with_a_warning(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, root = saved
    shutil.copytree(root / 'widths', tmp_path / 'widths')
    for width in model.widths:
        of_before(tmp_path / f'widths/w{width:g}')
    with pytest.warns(UserWarning, match=r"w0\.25/model\.safetensors' declares no digest of its weights"):
        checkpoint = load_checkpoint_model(tmp_path / 'widths/w0.25')
    assert checkpoint.space == checkpoint.compatibility == compatibility_id(model)
    assert checkpoint.digest(0.25) == ''
    with pytest.warns(UserWarning, match='declares no digest'):
        together = load_checkpoint_model(tmp_path / 'widths')
    assert together.space == compatibility_id(model)
    assert together.digest(0.5) == ''


@pytest.mark.parametrize(
    'key, value',
    [
        ('space', 7), ('space', ''), ('weights', None), ('compatibility', ['a']), ('width', '0.5'), ('width', True),
        ('width', 1.5), ('width', float('nan')), ('widths', 0.5), ('widths', []), ('widths', [0.5, 'x']),
        ('digests', ['a']), ('digests', {'w0.5': 1}),
    ],
)  # fmt: skip
def test_odd_declarations_are_refused_by_name(saved: tuple[Any, Path], tmp_path: Path, key: str, value: Any) -> None:
    shutil.copytree(saved[1] / 'widths/w0.5', tmp_path / 'copy')
    change_section(tmp_path / 'copy', lambda section: section.update({key: value}))
    with pytest.raises(ValueError, match=rf"copy/config\.json': {key} must be"):
        load_checkpoint_model(tmp_path / 'copy')


@pytest.mark.parametrize(
    'dtype', [torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_weights_that_are_no_floating_numbers_are_refused(saved: tuple[Any, Path], tmp_path: Path, dtype: Any) -> None:
    model, _ = saved
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in model.state_dict().items()}
    name = str(dtype).removeprefix('torch.')
    path = save_training(model, tmp_path / 'last.pth.tar', state_dict=state)
    with pytest.raises(ValueError, match=rf"last\.pth\.tar' does not fit .* of another type: .* {name} for floating"):
        load_checkpoint_model(path)


def test_counters_that_are_no_integers_and_odd_tensors_are_refused(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, _ = saved
    counters = {k: t.float() if k.endswith('num_batches_tracked') else t for k, t in model.state_dict().items()}
    path = save_training(model, tmp_path / 'a.pth.tar', state_dict=counters)
    with pytest.raises(ValueError, match=r'of another type: .*num_batches_tracked floating for int64'):
        load_checkpoint_model(path)
    sparse = {k: t.to_sparse() if k == 'neck.proj.weight' else t for k, t in model.state_dict().items()}
    path = save_training(model, tmp_path / 'b.pth.tar', state_dict=sparse)
    with pytest.raises(ValueError, match=r'of another type: neck\.proj\.weight no plain tensor for floating'):
        load_checkpoint_model(path)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):  # these are converted, as ever
        other = {k: t.to(dtype) if t.is_floating_point() else t for k, t in model.state_dict().items()}
        assert load_checkpoint_model(save_training(model, tmp_path / 'c.pth.tar', state_dict=other)).widths
