"""timm's train.py, unmodified (SFSC_TIMM_CHECKOUT names a checkout), and a stand-in that makes the same calls."""

from __future__ import annotations

import csv
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.task
import torch
from PIL import Image
from timm.loss import LabelSmoothingCrossEntropy
from torch import nn

import sfsc_timm.tasks

STAND_IN = Path(__file__).parents[1] / 'helpers' / 'loop.py'
CHECKOUT = os.environ.get('SFSC_TIMM_CHECKOUT')

MODEL = ['channels=(16,24,32,32)', 'layers=(1,1,1,1)', 'stem_width=8', 'embed_dim=16', 'widths=(0.5,1.0)']

Train = Callable[..., Path]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, one colour each."""
    root = tmp_path_factory.mktemp('images')
    noise = np.random.default_rng(0)
    for split, count in (('train', 4), ('validation', 2)):
        for label in range(3):
            (root / split / f'{label}').mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 80, (36, 36, 3))
                pixels[..., label] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / f'{label}' / f'{index}.png')
    return root


@pytest.fixture
def undone() -> Iterator[None]:
    """Takes back what `import sfsc_timm.timm_train` does to timm's classes."""
    yield
    for name in ('ClassificationTask', 'LogitDistillationTask', 'FeatureDistillationTask', 'TokenDistillationTask'):
        # A class that has had a __new__ keeps a slot for it, so that deleting it would not be enough.
        getattr(timm.task, name).__new__ = lambda cls, *args, **kwargs: object.__new__(cls)
    for name in ('timm_train', 'train_task'):
        sys.modules.pop(f'sfsc_timm.{name}', None)


@pytest.fixture(params=['stand-in', 'train.py'])
def script(request: pytest.FixtureRequest) -> Path:
    if request.param == 'stand-in':
        return STAND_IN
    if not CHECKOUT:
        pytest.skip('SFSC_TIMM_CHECKOUT does not name a checkout of timm, whose train.py is in no package')
    return Path(CHECKOUT) / 'train.py'


@pytest.fixture
def train(script: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undone: None) -> Train:
    """Runs the script on tiny images, at width 0.5; gives the folder of its checkpoints."""

    def run(*flags: str, joint: bool = True, name: str = 'run', kwargs: tuple[str, ...] = ('width=0.5',)) -> Path:
        argv = ['train.py', '--device-modules', 'sfsc_timm', *(['sfsc_timm.timm_train'] if joint else [])]
        argv += ['--data-dir', str(folder), '--num-classes', '3', '--input-size', '3', '32', '32']
        argv += ['--batch-size', '4', '--epochs', '1', '--device', 'cpu', '--workers', '0']
        argv += ['--lr', '0.05', '--warmup-epochs', '0', '--output', str(tmp_path), '--experiment', name]
        argv += ['--model', 'sfsc_resnet18d', '--model-kwargs', *MODEL, *kwargs, *flags]
        monkeypatch.setattr(sys, 'argv', argv)
        if '--aug-splits' not in flags:  # which is done by the prefetching loader's collate function
            argv.append('--no-prefetcher')
        runpy.run_path(str(script), run_name='__main__')
        return tmp_path / name

    return run


def losses(output: Path) -> list[float]:
    key = 'train_loss'
    with (output / 'summary.csv').open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row[key] != key]


def checkpoint(output: Path) -> dict[str, Any]:
    return dict(torch.load(output / 'last.pth.tar', weights_only=False))


WORKS = {
    'plain': '--smoothing 0.2 --opt adamw --sched step --weight-decay 0.01',
    'augmentation': '--mixup 0.5 --cutmix 0.5 --mixup-off-epoch 1 --drop 0.1 --drop-path 0.1 --epochs 2 '
    '--model-ema --model-ema-warmup',
    'accumulation': '--grad-accum-steps 2 --clip-grad 0.1 --clip-mode agc --channels-last --grad-checkpointing',
    'half precision': '--amp --amp-dtype float16 --clip-grad 1.0 --layer-decay 0.9',
    'half precision weights': '--model-dtype bfloat16',
    'compiled': '--torchcompile eager',
}
ONLY_TRAIN_PY = {
    'splits': '--aug-splits 2',
    'sizes': '--train-img-sizes 32 48 --variable-batch-loss-scale linear',
}
ELSEWHERE = {
    '--resume',
    '--no-resume-opt',
    '--initial-checkpoint',
    '--model-kwargs',
    '--lr',
    '--dist-bn',
    '--no-ddp-bb',
}

REFUSED = {
    '--opt adahessian': ('--opt', 'adahessian'),
    '--jsd-loss': ('--jsd-loss',),
    '--bce-loss': ('--bce-loss',),
    '--kd-model-name': ('--kd-model-name', 'resnet18'),
    '--torchscript': ('--torchscript',),
    '--split-bn': ('--split-bn',),
    '--sync-bn': ('--sync-bn',),
    '--naflex-loader': ('--naflex-loader',),
}


@pytest.fixture
def train_task(undone: None) -> Any:
    import sfsc_timm.timm_train

    return sfsc_timm.timm_train


def test_the_table_is_tested_row_by_row(train_task: Any) -> None:
    rows = [line.split('|')[1:3] for line in train_task.__doc__.splitlines() if line.startswith('| --')]
    works = {flag for flags, what in rows if 'works' in what for flag in flags.split() if flag.startswith('--')}
    refused = {flags.strip() for flags, what in rows if what.strip().startswith('refused')}
    run = ' '.join((*WORKS.values(), *ONLY_TRAIN_PY.values())).split()
    assert works == {flag for flag in run if flag.startswith('--') and flag != '--epochs'} | ELSEWHERE
    assert refused == set(REFUSED)


@pytest.mark.parametrize('case', WORKS)
def test_flags_that_work(train: Train, case: str) -> None:
    output = train(*WORKS[case].split())
    found = losses(output)
    assert all(np.isfinite(found))
    saved = checkpoint(output)
    assert saved['task_state']['updates'] > 0
    assert ('state_dict_ema' in saved) == ('--model-ema' in WORKS[case])
    model = timm.create_model('sfsc_resnet18d', num_classes=3, channels=(16, 24, 32, 32), layers=(1, 1, 1, 1),
                              stem_width=8, embed_dim=16, widths=(0.5, 1.0))  # fmt: skip
    model.load_state_dict(saved['state_dict'])


@pytest.mark.parametrize('script', ['train.py'], indirect=True)
@pytest.mark.parametrize('case', ONLY_TRAIN_PY)
def test_flags_of_the_loader(train: Train, case: str) -> None:
    assert all(np.isfinite(losses(train(*ONLY_TRAIN_PY[case].split()))))


@pytest.mark.parametrize('flag', REFUSED)
def test_flags_that_are_refused_by_name(train: Train, flag: str) -> None:
    with pytest.raises(ValueError, match=f'{flag} does not go with joint training'):
        train(*REFUSED[flag])


def test_resume_goes_on_with_epoch_optimizer_and_random_orders(train: Train) -> None:
    first = checkpoint(train('--epochs', '1'))
    last = str(train('--epochs', '1', name='again') / 'last.pth.tar')
    resumed = checkpoint(train('--epochs', '2', '--resume', last, name='resumed'))
    assert (first['epoch'], resumed['epoch']) == (0, 1)
    assert (first['task_state']['updates'], resumed['task_state']['updates']) == (3, 6)
    momenta = [next(iter(c['optimizer']['state'].values()))['momentum_buffer'] for c in (first, resumed)]
    assert not torch.equal(*momenta)
    fresh = checkpoint(train('--epochs', '2', '--resume', last, '--no-resume-opt', name='fresh'))
    assert fresh['task_state']['updates'] == 6
    started = checkpoint(train('--initial-checkpoint', last, name='started'))
    assert started['task_state']['updates'] == 3


def test_joint_training_changes_what_fine_tuning_of_one_width_does_not(train: Train) -> None:
    """The widest width's own part of a weight has a gradient in joint training only; weight decay is switched off."""
    before = checkpoint(train('--lr', '1e-9', '--weight-decay', '0', joint=False, name='before'))['state_dict']
    alone = checkpoint(train('--weight-decay', '0', joint=False, name='alone'))['state_dict']
    joint = checkpoint(train('--weight-decay', '0', name='joint'))['state_dict']
    key = 'layer4.0.conv1.weight'
    inner = (slice(0, 16), slice(0, 16))
    outer = (slice(16, None), slice(16, None))
    torch.testing.assert_close(alone[key][outer], before[key][outer])
    assert not torch.allclose(alone[key][inner], before[key][inner])
    assert not torch.allclose(joint[key][outer], before[key][outer])


def test_weight_decay_shrinks_what_fine_tuning_does_not_use(train: Train) -> None:
    before = checkpoint(train('--lr', '1e-9', '--weight-decay', '0', joint=False, name='before'))['state_dict']
    after = checkpoint(train('--weight-decay', '1.0', joint=False, name='after'))['state_dict']
    key = 'layer4.0.conv1.weight'
    outer = (slice(16, None), slice(16, None))
    assert after[key][outer].norm() < 0.95 * before[key][outer].norm()


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason='SFSC_TIMM_CHECKOUT does not name a checkout of timm')
def test_two_processes_under_torchrun(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / 'train.py'  # beside it would lie the checkout's own timm
    script.write_text((Path(str(CHECKOUT)) / 'train.py').read_text())
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(script)]
    command += ['--device-modules', 'sfsc_timm', 'sfsc_timm.timm_train', '--model', 'sfsc_resnet18d']
    command += ['--model-kwargs', *MODEL, '--data-dir', str(folder), '--num-classes', '3', '--input-size', '3', '32']
    command += ['32', '--batch-size', '2', '--epochs', '1', '--device', 'cpu', '--workers', '0', '--no-prefetcher']
    command += ['--lr', '0.05', '--warmup-epochs', '0', '--grad-accum-steps', '2', '--dist-bn', 'broadcast']
    command += ['--no-ddp-bb', '--model-ema', '--output', str(tmp_path), '--experiment', 'run']
    one_thread = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(np.isfinite(losses(tmp_path / 'run')))
    assert checkpoint(tmp_path / 'run')['task_state']['updates'] == 2


def test_options_come_from_a_file(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'sfsc.yaml'
    file.write_text('criterion: cross_entropy\naggregation: sum\nscope: global\nseed: 7\n')
    monkeypatch.setenv('SFSC_TIMM_CONFIG', str(file))
    tasks = []
    create = sfsc_timm.tasks.SFSCTask.__init__
    monkeypatch.setattr(
        sfsc_timm.tasks.SFSCTask, '__init__', lambda task, *a, **k: (tasks.append(task), create(task, *a, **k))[1]
    )
    train('--smoothing', '0.2')
    (task,) = tasks
    assert type(task.criterion).__name__ == 'CrossEntropyLoss'
    assert task.criterion.label_smoothing == 0.2
    assert task.projection.scope == 'global'


@pytest.mark.parametrize(
    'text, message', [('- sum', r'mapping.*list'), ('agregation: sum', 'agregation'), ('scope: network', 'network')]
)
def test_wrong_options(train_task: Any, text: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / 'sfsc.yaml'
    file.write_text(text)
    monkeypatch.setenv('SFSC_TIMM_CONFIG', str(file))
    model = timm.create_model('sfsc_resnet18d', num_classes=3)
    with pytest.raises(ValueError, match=message):
        timm.task.ClassificationTask(model=model, criterion=nn.CrossEntropyLoss())
    monkeypatch.setenv('SFSC_TIMM_CONFIG', str(tmp_path / 'gone.yaml'))
    with pytest.raises(FileNotFoundError, match=r'SFSC_TIMM_CONFIG.*gone.yaml'):
        timm.task.ClassificationTask(model=model)


def test_the_hook_reaches_the_class_and_refuses_the_others(train_task: Any) -> None:
    model = timm.create_model('sfsc_resnet18d', num_classes=3)
    for criterion, smoothing in ((LabelSmoothingCrossEntropy(0.3), 0.3), (nn.CrossEntropyLoss(), 0.0)):
        task: Any = timm.task.ClassificationTask(model=model, criterion=criterion, verbose=False)
        assert isinstance(task, sfsc_timm.tasks.SFSCTask)
        assert task.criterion.label_smoothing == smoothing
    task = timm.task.ClassificationTask(model, criterion_kwargs={'loss_type': 'ce', 'smoothing': 0.1})
    assert task.criterion.label_smoothing == 0.1
    for criterion_kwargs in ({'loss_type': 'bce'}, {'class_weight': 2.0}):
        with pytest.raises(ValueError, match='must be a cross-entropy'):
            timm.task.ClassificationTask(model, criterion_kwargs=criterion_kwargs)
    with pytest.raises(ValueError, match='must be a cross-entropy'):
        timm.task.ClassificationTask(model, criterion=nn.BCEWithLogitsLoss())
    with pytest.raises(ValueError, match='MultiLabelClassificationTask'):
        timm.task.MultiLabelClassificationTask(model)
    with pytest.raises(ValueError, match='LogitDistillationTask'):
        timm.task.LogitDistillationTask(student_model=model, teacher_model='resnet18')
    with pytest.raises(ValueError, match='slimmable'):
        timm.task.ClassificationTask(timm.create_model('resnet18'))


def test_converted_normalisation_is_refused() -> None:
    """Both conversions would keep one width's normalisation; timm and torch fail on ours in converting already."""
    from timm.layers import convert_splitbn_model, convert_sync_batchnorm

    model = timm.create_model('sfsc_resnet18d', num_classes=3)
    for convert in (convert_sync_batchnorm, nn.SyncBatchNorm.convert_sync_batchnorm):
        with pytest.raises(TypeError):
            convert(model)
    with pytest.raises(ValueError, match='--split-bn'):
        sfsc_timm.tasks.SFSCTask(convert_splitbn_model(model))
