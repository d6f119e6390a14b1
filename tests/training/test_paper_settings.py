"""The paper table's settings for the person and vehicle data sets, run on miniature trees in their layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image
from small_runs import SETTINGS

from sfsc_timm.training import TrainConfig, TrainingRun, read_config

CONFIGS = Path(__file__).parents[2] / 'benchmarks' / 'configs'

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
    assert settings['model'] == 'sfsc_resnet50'
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
