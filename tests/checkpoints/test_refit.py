"""Necks of narrow widths fitted again to φ, in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.checkpoints import paint, save_whole, tiny
from helpers.zoo import CONVNEXT, assert_close_to, embed
from torch import Tensor

from sfsc_timm.checkpoints import load_checkpoint_model, space_id
from sfsc_timm.checkpoints.refit import refit, save_refitted


def pictures(count: int = 120) -> Tensor:
    """Coarse noise, each another picture."""
    noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, 32, mode='bilinear')


def agreement(model: Any, width: float, x: Tensor) -> float:
    with torch.no_grad():
        full = model.extract(1.0)(x)
        return float(F.cosine_similarity(model.extract(width)(x), full).mean())


OWN_NECKS: dict[str, Any] = {'own_necks': True, 'neck_norm': False}  # of label-free


@pytest.mark.parametrize('kwargs', [{}, {'neck_norm': False}, OWN_NECKS], ids=str)
def test_a_width_agrees_better_with_the_full_one_on_images_that_were_not_fitted(
    kwargs: dict[str, Any], tmp_path: Path
) -> None:
    model, x = tiny(**kwargs), pictures(200)
    state = {k: t.clone() for k, t in model.state_dict().items()}
    results = refit(model, x[:120].split(50), [0.5, 0.25])
    assert [result.width for result in results] == [0.5, 0.25]
    folders = save_refitted(model, results, tmp_path)
    assert sorted(folders) == [0.25, 0.5, 0.75, 1.0]
    loaded = load_checkpoint_model(tmp_path)
    assert loaded.space == space_id(model)
    for result in results:
        assert result.gains
        before, after = agreement(model, result.width, x[120:]), agreement(loaded.model, result.width, x[120:])
        assert 1 - after < 0.5 * (1 - before)
        assert result.agreement == pytest.approx((before, after), abs=0.1)
        dense: Any = model.extract(result.width)
        features = dense.forward_head(dense.forward_features(x), pre_logits=True).detach().double()
        assert_close_to(
            loaded.model.extract(result.width)(x).detach().double(), features @ result.weight.T + result.bias
        )
    for width in (0.75, 1.0):
        assert_close_to(loaded.model.extract(width)(x).detach(), model.extract(width)(x).detach())
    assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())


def test_what_does_not_gain_stays(tmp_path: Path) -> None:
    model, x = tiny(), pictures(60)
    results = [replace(result, neighbours=(0.5, 0.4)) for result in refit(model, [x], [0.25])]
    assert not results[0].gains
    save_refitted(model, results, tmp_path)
    expected = model.extract(0.25)(x).detach()
    assert_close_to(load_checkpoint_model(tmp_path).model.extract(0.25)(x).detach(), expected)


def test_neighbours_are_those_of_the_full_width() -> None:
    """Against a sorted list of each query's, by hand."""
    from sfsc_timm.checkpoints.refit import _shared_neighbours

    gallery, places = torch.randn(40, 5).double(), torch.tensor([3, 7, 39])
    queries = gallery[places] + 0.5 * torch.randn(3, 5).double()
    shares = []
    for query, place in zip(queries, places.tolist(), strict=True):
        near = []
        for embedding in (query, gallery[place]):
            scores = F.cosine_similarity(embedding[None], gallery, dim=1).tolist()
            others = sorted((n for n in range(40) if n != place), key=scores.__getitem__, reverse=True)
            near.append(set(others[:10]))
        shares.append(len(near[0] & near[1]) / 10)
    assert _shared_neighbours(queries, gallery, places) == pytest.approx(sum(shares) / 3)
    assert _shared_neighbours(gallery[places], gallery, places) == 1


def test_the_map_is_the_minimum() -> None:
    """Against the gradient of the sum that it is documented to minimise."""
    from sfsc_timm.checkpoints.refit import _fit, _Map

    features, targets = torch.randn(40, 6).double() + 1, torch.randn(40, 3).double()
    neck = _Map(torch.randn(3, 6).double(), torch.randn(3).double())
    found = _fit(neck, features, targets, 0.1)
    weight, bias = (t.clone().requires_grad_() for t in found)
    scale = targets.norm(dim=1)
    penalty = 0.1 * (features / scale[:, None]).square().sum(0).mean()
    error = ((features @ weight.T + bias - targets).square().sum(1) / scale.square()).sum()
    (error + penalty * (weight - neck.weight).square().sum()).backward()
    assert weight.grad.abs().max() < 1e-6 * penalty  # type: ignore[union-attr]
    assert bias.grad.abs().max() < 1e-4  # type: ignore[union-attr]


def test_convnext() -> None:
    model = CONVNEXT.create(num_classes=0)
    [result] = refit(model, [pictures(60)], [0.5])
    assert result.agreement[1] > result.agreement[0]
    assert result.weight.shape == (256, 48)
    assert embed(model, pictures(2)).shape == (2, 256)


@pytest.mark.parametrize(
    'kwargs,count,widths,message',
    [
        ({}, 49, None, 'at least 50 images to fit and to measure on, got 49'),
        ({}, 60, [1.0], r'widths must be among \(0\.25, 0\.5, 0\.75\), got \(1\.0,\)'),
        ({}, 60, [0.3], r'widths must be among'),
        ({'embed_dim': 0}, 60, None, 'must have a neck'),
    ],
)
def test_what_cannot_be_fitted(kwargs: dict[str, Any], count: int, widths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refit(tiny(**kwargs), [pictures(count)], widths)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('rich')
    from sfsc_timm.cli.main import main

    checkpoint = save_whole(tiny(), tmp_path / 'whole')
    paint(tmp_path / 'photos', identities=12, images=5)
    arguments = ['refit', str(checkpoint), '--images', str(tmp_path / 'photos'), '--output', str(tmp_path / 'out')]
    assert main([*arguments, '--width', '0.25']) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'width 0.25: cosine to the full width' in printed
    assert 'w0.25, w0.5, w0.75, w1' in printed
    loaded = load_checkpoint_model(tmp_path / 'out')
    assert loaded.space == load_checkpoint_model(checkpoint).space
    assert loaded.preprocessing == load_checkpoint_model(checkpoint).preprocessing
    assert main(['refit', str(tmp_path / 'out'), '--images', str(tmp_path / 'photos')]) == 1
    assert 'must be a whole slimmable model' in capsys.readouterr().err.replace('\n', ' ')


@pytest.mark.parametrize('kwargs', [{}, OWN_NECKS], ids=str)
def test_a_width_is_added_by_the_command(
    kwargs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('rich')
    from sfsc_timm.cli.main import main
    from sfsc_timm.data import Preprocessing, Sample, batches
    from sfsc_timm.models import estimate_statistics

    checkpoint = save_whole(tiny(**kwargs), tmp_path / 'whole')
    files = paint(tmp_path / 'photos', identities=10, images=5)
    command = ['refit', str(checkpoint), '--images', str(tmp_path / 'photos'), '--output', str(tmp_path / 'out')]
    assert main([*command, '--width', '0.6', '--add-width', '0.6', '0.4']) == 0
    assert 'w0.25, w0.4, w0.5, w0.6, w0.75, w1' in ' '.join(capsys.readouterr().out.split())
    loaded, before = load_checkpoint_model(tmp_path / 'out'), load_checkpoint_model(checkpoint)
    assert (loaded.space, loaded.widths) == (before.space, (0.25, 0.4, 0.5, 0.6, 0.75, 1.0))
    model: Any = before.model
    model.add_width(0.4)
    size, mean, std = before.preprocessing.input_size, before.preprocessing.mean, before.preprocessing.std
    images = torch.cat(
        [b.images for b in batches([Sample(f, 0) for f in files], Preprocessing(size, mean, std).transform())]
    )
    estimate_statistics(model, [images], [0.4])  # all in one batch, as there
    assert_close_to(loaded.model.extract(0.4)(images).detach(), model.extract(0.4)(images).detach(), 1e-4)
    for width in (0.25, 0.5, 0.75, 1.0):
        assert_close_to(loaded.model.extract(width)(images).detach(), model.extract(width)(images).detach())
    assert main([*command, '--add-width', '0.5']) == 1
    assert 'width must be one that the model does not have, got 0.5' in capsys.readouterr().err.replace('\n', ' ')
