"""The settings in benchmarks/paper/configs; those for person and vehicle data sets run on miniature trees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import trees
from helpers.small_runs import SETTINGS
from PIL import Image

from sfsc_timm.recipes import create_recipe
from sfsc_timm.training import TrainConfig, TrainingRun, read_config

CONFIGS = Path(__file__).parents[2] / 'benchmarks' / 'paper' / 'configs'

MORE_OF_MARKET1501 = tuple(f'bounding_box_train/{i:04}_c{c}s1_00000{c}_00.jpg' for i in (10, 11, 12) for c in (1, 2))


def tree(name: str, root: Path) -> Path:
    plant(name, root)
    for number, path in enumerate(sorted(root.rglob('*.jpg'))):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def plant(name: str, root: Path) -> Path:
    if name == 'market1501':
        return trees.plant(root, *trees.MARKET1501, *MORE_OF_MARKET1501)
    return trees.plant(root, *trees.VERI776) if name == 'veri776' else trees.msmt17(root)


@pytest.mark.parametrize('recipe', ['sfsc', 'bct'])
@pytest.mark.parametrize('name', ['market1501', 'msmt17', 'veri776'])
def test_the_papers_settings(name: str, recipe: str, tmp_path: Path) -> None:
    settings = read_config(CONFIGS / f'{name}.yaml')
    assert settings['model'] == 'sfsc_resnet50.a1_in1k'
    assert settings['pretrained']
    small = {
        **{key: SETTINGS[key] for key in ('threads', 'device')},
        'data_dir': str(tree(name, tmp_path / 'data')),
        'pretrained': False,  # no network here
        'amp': False,
        'workers': 0,
        'model_kwargs': {**settings['model_kwargs'], 'channels': [32, 64, 64, 64], 'layers': [1, 1, 1, 1]},
        'input_size': [3, 32, 16],
        'batch_size': 4,
        'num_instances': 2,
        'epochs': 1,
        'warmup_epochs': 0,
        'recipe': recipe,
    }
    matrix = TrainingRun(TrainConfig(**{**settings, **small}), tmp_path / 'run').run()
    assert matrix.mAP.shape == (4, 4)
    assert matrix.mAP.max() > 0


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.yaml')), ids=lambda path: path.stem)
def test_settings_are_known_and_in_range(path: Path) -> None:
    config = TrainConfig(**read_config(path))
    assert config.data == path.stem
    assert config.batch_size % config.num_instances == 0


@pytest.mark.parametrize('path', sorted((CONFIGS / 'trials').glob('*.yaml')), ids=lambda path: path.stem)
def test_every_system_has_as_many_trials(path: Path) -> None:
    settings = read_config(CONFIGS / path.name)
    found = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert len({len(trials) for trials in found['systems'].values()}) == 1
    for system, trials in found['systems'].items():
        assert len({json.dumps(trial) for trial in trials}) == len(trials)
        for trial in trials:
            config = TrainConfig(**{**settings, 'recipe': system, **found['common'], **trial})
            create_recipe(config.recipe, **config.recipe_kwargs)


def test_the_weights_settings() -> None:
    TrainConfig(**read_config(CONFIGS / 'weights' / 'both-stages.yaml'))
