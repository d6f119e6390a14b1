"""Nested embedding sizes in saved folders: what they hold, declare, and give back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import DATA_CONFIG, save_training, tiny
from helpers.zoo import EFFICIENTNET, assert_close_to, predict

from sfsc_timm import load_width
from sfsc_timm.checkpoints import (
    DenseWidths,
    compatibility_id,
    load_checkpoint_model,
    save_model,
    save_width,
    save_widths,
    space_id,
    weights_digest,
)

SIZES = (4, 8, 16)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope='module')
def model() -> Any:
    return tiny(embed_dims=SIZES)


def embed(model: Any, width: float, size: int | None = None) -> torch.Tensor:
    with torch.no_grad(), model.at_width(width):
        return model.embed(X, dim=size)


def section(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / 'config.json').read_text())
    return found['sfsc']


def test_one_metric_space_for_all_sizes(model: Any) -> None:
    """The ids depend on the weights alone, which are those of a model of one size."""
    plain = tiny()
    assert plain.embed_dims == (16,)
    assert (space_id(model), compatibility_id(model)) == (space_id(plain), compatibility_id(plain))


def test_a_whole_model(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path / 'whole', data_config=DATA_CONFIG)
    save_training(model, tmp_path / 'last.pth.tar')
    loaded = load_checkpoint_model(tmp_path / 'whole')
    assert loaded.embed_dims == loaded.model.embed_dims == SIZES
    assert section(tmp_path / 'whole')['embed_dims'] == list(SIZES)
    assert torch.equal(embed(loaded.model, 0.5, 8), embed(model, 0.5)[:, :8])
    found = load_checkpoint_model(tmp_path / 'last.pth.tar', model_kwargs={'embed_dims': SIZES})
    assert (found.embed_dims, found.space) == (SIZES, space_id(model))


def test_a_width_of_a_size(model: Any, tmp_path: Path) -> None:
    save_width(model, 0.25, tmp_path / 'small', dim=8)
    save_width(model, 0.25, tmp_path / 'large')
    small, large = (load_checkpoint_model(tmp_path / name) for name in ('small', 'large'))
    assert (small.embed_dims, large.embed_dims) == ((4, 8), SIZES)
    assert section(tmp_path / 'small')['embed_dim'] == 8
    for loaded in (small, large):
        assert (loaded.space, loaded.compatibility) == (space_id(model), compatibility_id(model))
        assert loaded.digest(0.25) == weights_digest(model, 0.25)
        for size in loaded.embed_dims:
            expected = embed(model, 0.25, size)
            assert_close_to(embed(loaded.model, 0.25, size), expected)
            assert_close_to(predict(loaded.model.extract(0.25, dim=size), X), expected)
            assert_close_to(predict(load_width(tmp_path / 'large', 0.25, dim=size), X), expected)
    assert_close_to(embed(small.model, 0.25), embed(model, 0.25, 8))
    before = [p.numel() for p in large.model.parameters()]
    assert sum(p.numel() for p in small.model.parameters()) == sum(before) - 8 * (16 + 1)
    with pytest.raises(ValueError, match=r'dim must be one of \(4, 8\), got 16'):
        small.model.extract(0.25, dim=16)
    with pytest.raises(ValueError, match=r'dim must be one of \(4, 8, 16\), got 5'):
        save_width(model, 0.25, tmp_path / 'none', dim=5)


def test_folders_of_all_widths(model: Any, tmp_path: Path) -> None:
    save_widths(model, tmp_path / 'widths', dim=8)
    loaded = load_checkpoint_model(tmp_path / 'widths')
    assert isinstance(loaded.model, DenseWidths)
    assert (loaded.widths, loaded.embed_dims) == (model.widths, (4, 8))
    assert_close_to(embed(loaded.model, 0.5, 4), embed(model, 0.5, 4))
    save_width(model, 0.5, tmp_path / 'widths' / 'w0.5')
    with pytest.raises(ValueError, match=r'embeddings of different sizes, \[\(4, 8\), \(4, 8, 16\)\]'):
        load_checkpoint_model(tmp_path / 'widths')


def test_where_plain_timm_has_no_narrow_model(tmp_path: Path) -> None:
    model = EFFICIENTNET.create(embed_dims=(4, 8, 24), num_classes=0)
    save_width(model, 0.5, tmp_path / 'w', allow_plugin=True, dim=8)
    loaded = load_checkpoint_model(tmp_path / 'w')
    assert loaded.embed_dims == (4, 8)
    assert_close_to(embed(loaded.model, 0.5), embed(model, 0.5, 8))
    assert_close_to(embed(loaded.model, 0.5, 4), embed(model, 0.5, 4))
    assert_close_to(predict(loaded.model.extract(0.5, dim=4), X), embed(model, 0.5, 4))


def test_a_model_of_one_size_is_saved_as_before(tmp_path: Path) -> None:
    plain = tiny()
    save_model(plain, tmp_path / 'whole')
    save_width(plain, 0.25, tmp_path / 'w')
    for name in ('whole', 'w'):
        assert 'embed_dims' not in (tmp_path / name / 'config.json').read_text()
    assert load_checkpoint_model(tmp_path / 'w').embed_dims == ()


@pytest.mark.parametrize(
    'sizes, message',
    [
        ([8, 4], 'embed_dims must be a list of whole numbers of at least 1, ascending'),
        ([4, True], 'embed_dims must be a list'),
        ([], 'embed_dims must be a list'),
        ([4, 32], 'embed_dims must end in 16, as many numbers as the model makes, got'),
    ],
)
@pytest.mark.parametrize('kind', ['whole', 'width'])
def test_sizes_that_a_file_cannot_mean(kind: str, sizes: list[Any], message: str, model: Any, tmp_path: Path) -> None:
    folder = tmp_path / 'w'
    _ = save_model(model, folder) if kind == 'whole' else save_width(model, 0.25, folder)
    config = json.loads((folder / 'config.json').read_text())
    config['sfsc']['embed_dims'] = sizes
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_checkpoint_model(folder)
