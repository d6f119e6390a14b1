"""Narrow widths that learn a finished network's embeddings, of images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.zoo import assert_close_to
from PIL import Image

from sfsc_timm.checkpoints import load_checkpoint_model, save_model
from sfsc_timm.data import batches, load_data
from sfsc_timm.losses import CrossEntropyLoss, EmbeddingRegression
from sfsc_timm.models import start_from_folded
from sfsc_timm.recipes import create_recipe
from sfsc_timm.tasks import SFSCTask
from sfsc_timm.training import TrainConfig, TrainingRun
from sfsc_timm.training.teacher import principal_neck

MODEL: dict[str, Any] = {'channels': [16, 16, 32, 32], 'stem_width': 8, 'embed_dim': 8, 'widths': [0.5, 1.0]}


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty smooth pictures, in two folders."""
    root = tmp_path_factory.mktemp('photos')
    noise = np.random.default_rng(0)
    for number in range(80):
        folder = root / 'ab'[number % 2]
        folder.mkdir(exist_ok=True)
        coarse = Image.fromarray(noise.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((24, 20 + number % 9), Image.Resampling.BICUBIC).save(folder / f'{number}.png')
    return root


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose norms and features are not those of a fresh one."""
    torch.manual_seed(0)
    model: Any = timm.create_model('sfsc_resnet18d', num_classes=3, **MODEL)
    model.train()
    for _ in range(20):
        model(torch.randn(16, 3, 16, 16))
    with torch.no_grad():
        model.neck.proj.weight.add_(0.2 * torch.randn_like(model.neck.proj.weight))
    path = tmp_path_factory.mktemp('finished') / 'model'
    save_model(model.eval(), path)
    return path


def settings(photos: Path, **changes: Any) -> dict[str, Any]:
    return {
        'recipe': 'label-free', 'data': 'images', 'data_dir': str(photos), 'data_kwargs': {'kept_back': 10},
        'model': 'sfsc_resnet18d', 'model_kwargs': MODEL, 'img_size': 16, 'epochs': 3, 'batch_size': 16,
        'eval_interval': 0, 'opt': 'adamw', 'lr': 0.0005, 'threads': 1, 'device': 'cpu', **changes,
    }  # fmt: skip


def test_narrow_widths_learn_and_the_full_one_stays(
    photos: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(**settings(photos, initial_checkpoint=str(finished)))
    run = TrainingRun(config, tmp_path / 'run')
    given: Any = load_checkpoint_model(finished).model.eval()
    seen = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    before, _ = run._start_from_given()
    before.eval()
    with torch.no_grad():
        target = given.embed(seen)
        assert_close_to(before.embed(seen), target)  # its neck had a norm, which is folded
    run.run()
    after: Any = load_checkpoint_model(tmp_path / 'run' / 'last.pth.tar').model.eval()
    assert 'is being trained' not in caplog.text  # as if it were alone
    slices: Any = timm.create_model('sfsc_resnet18d', num_classes=0, own_necks=True, neck_norm=False, **MODEL)
    start_from_folded(slices, given)
    pictures = next(iter(run._query)).images
    with torch.no_grad():
        target = given.embed(pictures)
        assert F.cosine_similarity(after.embed(pictures), target).mean() > 0.95
        with after.at_width(0.5), slices.eval().at_width(0.5):
            learnt, cut = (F.cosine_similarity(m.embed(pictures), target).mean() for m in (after, slices))
    assert learnt > 0.8 > cut + 0.1


def test_a_new_neck_keeps_the_cosines_of_centred_features(photos: Path) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model('sfsc_resnet18d', num_classes=0, **{**MODEL, 'embed_dim': 32}).eval()
    served = batches(load_data('images', photos, kept_back=2).training, _pixels, batch_size=16)
    neck = principal_neck(model, served)
    lone: Any = timm.create_model(
        'sfsc_resnet18d', num_classes=0, neck_norm=False, **{**MODEL, 'embed_dim': 32, 'widths': [1.0]}
    )
    start_from_folded(lone, model, neck)
    seen = torch.randn(6, 3, 16, 16)
    with torch.no_grad():
        center = torch.cat([model.forward_features(batch.images).mean((2, 3)) for batch in served]).mean(0)
        features = model.forward_features(seen).mean((2, 3)) - center
        found = lone.eval().embed(seen)
    assert_close_to(*(F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (found, features)), 1e-4)


def _pixels(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((16, 16)), dtype=np.float32)).permute(2, 0, 1) / 128 - 1


def test_the_loss_looks_at_embeddings_alone() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model('sfsc_resnet18d', num_classes=2, neck_norm=False, **MODEL)
    reference: Any = timm.create_model('sfsc_resnet18d', num_classes=2, neck_norm=False, **MODEL).eval()
    task = SFSCTask(model, EmbeddingRegression(CrossEntropyLoss()), aggregation='sum', reference=reference)
    images = torch.randn(4, 3, 16, 16)
    model.train()
    statistics = model.bn1.running_mean.clone()
    losses = task(images, torch.tensor([0, 1, 0, 1]))['losses']
    assert torch.equal(model.bn1.running_mean, statistics)  # of the full width, which runs as it serves
    assert model.training
    assert model.bn1.training
    model.eval()
    with torch.no_grad():
        expected = 1 - F.cosine_similarity(model.embed(images), reference.embed(images)).mean()
    assert losses[1].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    'changes, words',
    [
        ({}, 'weights to learn from are missing'),
        ({'triplet': 1.0}, 'triplet must be left out'),
        ({'num_instances': 4}, 'num_instances must be left out'),
        ({'smoothing': 0.1}, 'smoothing must be left out'),
        ({'model_kwargs': {**MODEL, 'neck_norm': True}}, 'neck_norm must be False'),
    ],
)
def test_settings_that_do_not_go_with_it(
    photos: Path, finished: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    weights = {} if not changes else {'initial_checkpoint': str(finished)}
    with pytest.raises(ValueError, match=words):
        TrainingRun(TrainConfig(**settings(photos, **weights, **changes)), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_teacher_is_needed() -> None:
    model: Any = timm.create_model('sfsc_resnet18d', num_classes=2, **MODEL)
    with pytest.raises(ValueError, match='reference must be a finished model'):
        create_recipe('label-free').create_task(model)


def test_images_without_labels(photos: Path, tmp_path: Path) -> None:
    data = load_data('images', photos, kept_back=10)
    assert (len(data.train), len(data.query), len(data.gallery)) == (70, 10, 10)
    assert [s.identity for s in data.query] == [s.identity for s in data.gallery]
    query, whole = np.asarray(data.query[0].image), np.asarray(data.gallery[0].image)
    top, left = whole.shape[0] // 6, whole.shape[1] // 6
    assert np.array_equal(query[:, ::-1], whole[top : whole.shape[0] - top, left : whole.shape[1] - left])
    again = load_data('images', photos, kept_back=10)
    assert [s.image for s in data.train] == [s.image for s in again.train]
    with pytest.raises(ValueError, match='kept_back must be at least 2'):
        load_data('images', photos, kept_back=1)
    (tmp_path / 'few').mkdir()
    Image.new('RGB', (9, 9)).save(tmp_path / 'few' / 'one.png')
    with pytest.raises(ValueError, match='at least 10 images'):
        load_data('images', tmp_path / 'few')
