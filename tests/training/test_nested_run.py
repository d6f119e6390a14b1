"""Runs with several embedding sizes: they go on bit for bit, and end in the matrix of each size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.small_runs import SETTINGS, same_states

from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.training import Loop, Report, TrainConfig, TrainingRun, resume_config
from sfsc_timm.training.checkpoint import load_checkpoint

KWARGS = {name: value for name, value in SETTINGS['model_kwargs'].items() if name != 'embed_dim'}
NESTED = {**SETTINGS, 'model_kwargs': {**KWARGS, 'embed_dims': [2, 4, 8]}, 'triplet': 1.0, 'num_instances': 4}


class StopAt(Report):
    """Ends a run as abruptly as a process can, from inside."""

    def on_step(self, loop: Loop) -> None:
        if loop.updates == 3:
            raise SystemExit('pulled the plug')


def start(folder: Path, report: Report | None = None, **changes: Any) -> Any:
    return TrainingRun(TrainConfig(**{**NESTED, **changes}), folder, report).run()


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    matrix = start(tmp_path / 'whole', checkpoint_interval=1)
    with pytest.raises(SystemExit):
        start(tmp_path / 'cut', StopAt(), checkpoint_interval=1)
    config, folder = resume_config(tmp_path / 'cut', {}, None)
    assert TrainingRun(config, folder, resume=True).run().mAP.tolist() == matrix.mAP.tolist()
    assert not same_states(*(load_checkpoint(tmp_path / name / 'last.pth.tar') for name in ('whole', 'cut')))
    saved = json.loads((tmp_path / 'whole/matrix.json').read_text())
    assert list(saved['by_dim']) == ['2', '4', '8']
    assert saved['by_dim']['8']['mAP'] == saved['mAP']
    assert saved['by_dim']['2']['params'][0] < saved['params'][0]
    assert load_checkpoint_model(tmp_path / 'whole/last.pth.tar').embed_dims == (2, 4, 8)


def test_networks_of_their_own_have_sizes_too(tmp_path: Path) -> None:
    matrix = start(tmp_path / 'run', recipe='bct', epochs=1, warmup_epochs=0)
    assert list(matrix.info['by_dim']) == ['2', '4', '8']


def test_a_weight_for_sizes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='size_weight must be left out for a model of one embedding size'):
        TrainingRun(TrainConfig(**{**SETTINGS, 'recipe_kwargs': {'size_weight': 0.5}}), tmp_path / 'run').run()
