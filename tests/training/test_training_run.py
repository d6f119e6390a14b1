"""Whole runs: interrupted and resumed bit for bit, stopped by NaN or a signal, read by the other commands."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_runs import SETTINGS, same_states
from PIL import Image

from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.cli.main import main
from sfsc_timm.data import Batches
from sfsc_timm.recipes import list_recipes
from sfsc_timm.training import Loop, Report, TrainConfig, TrainingRun, WandB, resume_config, write_config
from sfsc_timm.training.checkpoint import load_checkpoint
from sfsc_timm.training.network import Shared


class StopAt(Report):
    """Ends a run as abruptly as a process can, from inside."""

    def __init__(self, update: int, network: str = '') -> None:
        self.update = update
        self.network = network
        self.name = ''

    def on_stage(self, name: str, loop: Loop) -> None:
        self.name = name

    def on_step(self, loop: Loop) -> None:
        if loop.updates == self.update and self.name == self.network:
            raise SystemExit('pulled the plug')


def start(folder: Path, report: Report | None = None, **changes: Any) -> Any:
    return TrainingRun(TrainConfig(**{**SETTINGS, **changes}), folder, report).run()


def go_on(folder: Path, **changes: Any) -> Any:
    config, found = resume_config(folder, changes)
    return TrainingRun(config, found, resume=True).run()


CASES = {
    'plain': {'recipe': 'sfsc'},
    'averaged, accumulated, P x K, triplet': {
        'recipe': 'sfsc',
        'model_ema': True,
        'model_ema_decay': 0.9,
        'grad_accum_steps': 2,
        'num_instances': 4,
        'triplet': 1.0,
        'drop_path': 0.2,
        'reprob': 0.5,
        'opt': 'adamw',
        'lr': 1e-3,
        'clip_grad': 1.0,
        'eval_interval': 1,
    },
    'classifiers beside the model': {'recipe': 'bct-s'},
    'one batch for all widths': {'recipe': 'sfsc', 'recipe_kwargs': {'teacher': 0}, 'num_instances': 4},
}


@pytest.mark.parametrize('case', CASES, ids=str)
def test_an_interrupted_run_is_bit_for_bit_the_whole_one(case: str, tmp_path: Path) -> None:
    settings = CASES[case]
    whole = start(tmp_path / 'whole', **settings)
    with pytest.raises(SystemExit):
        start(tmp_path / 'cut', StopAt(4), checkpoint_interval=1, **settings)
    assert load_checkpoint(tmp_path / 'cut/last.pth.tar')['sfsc_train']['loop']['updates'] == 3
    resumed = go_on(tmp_path / 'cut')
    states = [load_checkpoint(tmp_path / name / 'last.pth.tar') for name in ('whole', 'cut')]
    assert not same_states(*states)
    assert (whole.mAP == resumed.mAP).all()
    logs = [list(csv.DictReader((tmp_path / name / 'summary.csv').open())) for name in ('whole', 'cut')]
    assert len(logs[0]) == 2
    assert all(not same_states(a, b) for a, b in zip(*logs, strict=True))


def test_networks_of_their_own_resume_in_the_one_that_was_cut(tmp_path: Path) -> None:
    whole = start(tmp_path / 'whole', recipe='bct')
    with pytest.raises(SystemExit):
        start(tmp_path / 'cut', StopAt(2, 'w0.5'), recipe='bct', checkpoint_interval=1)
    finished = (tmp_path / 'cut/w1/last.pth.tar').stat().st_mtime_ns
    resumed = go_on(tmp_path / 'cut')
    assert (tmp_path / 'cut/w1/last.pth.tar').stat().st_mtime_ns == finished, 'the finished network is taken as it is'
    for name in ('w0.5', 'w1'):
        states = [load_checkpoint(tmp_path / run / name / 'last.pth.tar') for run in ('whole', 'cut')]
        assert not same_states(*states)
    assert (whole.mAP == resumed.mAP).all()


def test_a_run_that_was_cut_while_the_full_width_trains_alone(tmp_path: Path) -> None:
    whole = start(tmp_path / 'whole')
    with pytest.raises(SystemExit):
        start(tmp_path / 'cut', StopAt(3, 'teacher'), checkpoint_interval=1)
    assert not (tmp_path / 'cut/last.pth.tar').exists()
    resumed = go_on(tmp_path / 'cut')
    for name in ('teacher', '.'):
        states = [load_checkpoint(tmp_path / run / name / 'last.pth.tar') for run in ('whole', 'cut')]
        assert not same_states(*states)
    assert (whole.mAP == resumed.mAP).all()
    assert load_checkpoint_model(tmp_path / 'cut/teacher/last.pth.tar').widths == (1.0,)


def test_widths_of_a_checkpoint_stay_trained_beside_a_teacher(tmp_path: Path) -> None:
    """Where they begin from one, they are not slices of the teacher."""
    start(tmp_path / 'first', recipe_kwargs={'teacher': 0})
    before = load_checkpoint_model(tmp_path / 'first/last.pth.tar').model.state_dict()
    settings = {'initial_checkpoint': str(tmp_path / 'first/last.pth.tar'), 'lr': 1e-9, 'warmup_lr': 0.0}
    start(tmp_path / 'second', weight_decay=0.0, **settings)
    after = load_checkpoint_model(tmp_path / 'second/last.pth.tar').model.state_dict()
    for name, tensor in before.items():
        if name.endswith('weight'):
            torch.testing.assert_close(after[name], tensor, msg=name)


def test_compiling_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'torchcompile must be left out .* give --recipe-kwargs teacher=0'):
        start(tmp_path, torchcompile='eager')


# What starts from given weights is told in test_label_free.py.
@pytest.mark.parametrize('recipe', [name for name, cls in list_recipes().items() if not cls.keeps_start])
def test_every_recipe_learns_and_is_read_by_later_commands(recipe: str, tmp_path: Path) -> None:
    matrix = start(tmp_path / 'run', recipe=recipe, epochs=1, warmup_epochs=0, num_instances=4)
    assert matrix.widths == (0.5, 1.0)
    separate = list_recipes()[recipe].separate
    folders = [tmp_path / 'run' / name for name in ('w0.5', 'w1')] if separate else [tmp_path / 'run']
    for folder in folders:
        row = next(csv.DictReader((folder / 'summary.csv').open()))
        assert float(row['loss_1']) > 0
        loaded = load_checkpoint_model(folder / 'model_best.pth.tar')
        assert loaded.preprocessing.input_size == (1, 16, 16)
        assert loaded.widths == ((1.0,) if separate else (0.5, 1.0))
        assert (folder / 'training.png').is_file()
    info = json.loads((tmp_path / 'run/matrix.json').read_text())
    if not separate:
        assert info['compatibility'] == load_checkpoint_model(tmp_path / 'run/last.pth.tar').compatibility
    assert (tmp_path / 'run/matrix.png').is_file()


@pytest.mark.parametrize('recipe, file', [('bct', 'w0.5/last.pth.tar'), ('sfsc', 'last.pth.tar')])
def test_the_hint_at_the_end_names_a_checkpoint_that_is_there(
    recipe: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('rich')
    monkeypatch.setattr(TrainingRun, 'run', lambda _: None)
    write_config(TrainConfig(**{**SETTINGS, 'recipe': recipe}), tmp_path / 'settings.yaml')
    flags = ['--config', str(tmp_path / 'settings.yaml'), '--output', str(tmp_path), '--experiment', 'run']
    assert main(['train', *flags]) == 0
    assert f'--checkpoint {tmp_path / "run" / file} --data glyphs' in capsys.readouterr().out.replace('\n', '')


WITHOUT_OWN = [('bct-s', 'own_classifiers'), ('asymmetric', 'own_losses'), ('asymmetric-s', 'own_losses')]


@pytest.mark.parametrize('recipe, option', WITHOUT_OWN)
def test_followers_that_learn_from_the_full_width_alone(recipe: str, option: str, tmp_path: Path) -> None:
    short = {'epochs': 1, 'warmup_epochs': 0, 'num_instances': 4}
    with_own = start(tmp_path / 'with', recipe=recipe, **short)
    without = start(tmp_path / 'without', recipe=recipe, recipe_kwargs={option: False}, **short)
    separate = list_recipes()[recipe].separate
    file = 'w0.5/last.pth.tar' if separate else 'last.pth.tar'
    states = [load_checkpoint(tmp_path / run / file)['state_dict'] for run in ('with', 'without')]
    assert same_states(*states), 'weights tell it on every processor, two rankings may be alike'
    if separate:
        assert without.mAP[1, 1] == with_own.mAP[1, 1]


def test_widths_with_batches_of_their_own_see_as_many_images_as_with_one_for_all(tmp_path: Path) -> None:
    def batches_of(own_batches: bool) -> Batches:
        changes = {'recipe_kwargs': {'teacher': 0, 'own_batches': own_batches}, 'num_instances': 4}
        return TrainingRun(TrainConfig(**{**SETTINGS, **changes}), tmp_path / str(own_batches)).train_batches

    shared, own = batches_of(False), batches_of(True)
    assert len(own) == len(shared)
    for alone, both in zip(shared, own, strict=True):
        narrow, full = both.indices.chunk(2)
        assert (full == alone.indices).all(), 'the full width goes on as it would alone'
        assert len(narrow) == len(full)
        assert not torch.equal(narrow, full)


def test_widths_with_batches_of_their_own_share_their_images_in_the_last_epochs(tmp_path: Path) -> None:
    changes = {'recipe_kwargs': {'teacher': 0, 'own_batches': 0.5}, 'num_instances': 4, 'epochs': 2}
    served = TrainingRun(TrainConfig(**{**SETTINGS, **changes}), tmp_path).train_batches
    for epoch, alike in ((0, False), (1, True)):
        served.sampler.set_epoch(epoch)
        for batch in served:
            narrow, full = batch.indices.chunk(2)
            assert torch.equal(narrow, full) == alike
            images = batch.images.chunk(2)
            assert not torch.equal(*images), 'augmented anew for each width'


@pytest.mark.parametrize('share', [-0.1, 1.5])
def test_the_share_of_epochs_with_own_batches_is_checked(share: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'own_batches must be a share of the epochs in \[0, 1\]'):
        start(tmp_path, recipe_kwargs={'teacher': 0, 'own_batches': share})


def test_widths_with_batches_of_their_own_cannot_skip_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='on_error must be'):
        start(tmp_path, recipe_kwargs={'teacher': 0, 'own_batches': True}, on_error='skip')


@pytest.mark.usefixtures('dynamo')
def test_a_compiled_training_says_that_evaluation_runs_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated = []

    def evaluate(shared: Shared, model: Any, **options: Any) -> Any:
        evaluated.append(model)
        raise SystemExit('evaluated')

    monkeypatch.setattr(Shared, 'evaluate', evaluate)
    with pytest.raises(SystemExit, match='evaluated'):
        start(tmp_path, torchcompile='eager', epochs=1, warmup_epochs=0, recipe_kwargs={'teacher': 0})
    assert 'training steps are compiled by eager; evaluation runs eager' in caplog.text
    assert [type(model).__name__ for model in evaluated] == ['SlimmableResNet'], 'what is evaluated is not compiled'
    (field,) = (field for field in fields(TrainConfig) if field.name == 'torchcompile')
    assert 'evaluation runs eager' in field.metadata['help']


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match='lower lr'):
        start(tmp_path, lr=1e30, warmup_epochs=0, checkpoint_interval=1, epochs=4)
    state = load_checkpoint(tmp_path / 'last.pth.tar') if (tmp_path / 'last.pth.tar').is_file() else None
    if state is not None:
        assert all(tensor.isfinite().all() for tensor in state['state_dict'].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Poison(Report):
        def on_step(self, loop: Loop) -> None:
            if loop.updates == 3:
                with torch.no_grad():
                    next(loop.task.trainable_module.parameters()).fill_(float('nan'))

    with pytest.raises(FloatingPointError, match=r'not finite after step 3.*last good state'):
        start(tmp_path, Poison(), checkpoint_interval=1, recipe_kwargs={'teacher': 0})
    assert load_checkpoint(tmp_path / 'last.pth.tar')['sfsc_train']['loop']['updates'] == 2


def test_what_a_resumed_run_may_change(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        start(tmp_path / 'run', StopAt(2))
    with pytest.raises(FileExistsError, match='--resume'):
        start(tmp_path / 'run')
    with pytest.raises(ValueError, match=r'lr was 0.05 .* got 0.2'):
        resume_config(tmp_path / 'run', {'lr': 0.2})
    config, folder = resume_config(tmp_path / 'run/last.pth.tar', {'lr': 0.05, 'workers': 2})
    assert (config.workers, folder) == (2, tmp_path / 'run')
    with pytest.raises(FileNotFoundError, match=r'args\.yaml'):
        resume_config(tmp_path / 'elsewhere', {})


def test_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        start(tmp_path / 'run', StopAt(2), checkpoint_interval=1)
    last = tmp_path / 'run/last.pth.tar'
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match='cut off'):
        go_on(tmp_path / 'run')
    torch.save({'state_dict': {}}, last)
    with pytest.raises(ValueError, match='--initial-checkpoint'):
        go_on(tmp_path / 'run')


@pytest.mark.parametrize('others', [False, True], ids=['same number of classes', 'another number'])
def test_start_from_another_runs_weights(tmp_path: Path, others: bool) -> None:
    start(tmp_path / 'first', epochs=1, warmup_epochs=0)
    first = load_checkpoint(tmp_path / 'first/last.pth.tar')['state_dict']
    run = TrainingRun(
        TrainConfig(**{**SETTINGS, 'initial_checkpoint': str(tmp_path / 'first/last.pth.tar')}), tmp_path / 'second'
    )
    from sfsc_timm.training.build import create_model

    model = create_model(run.config, run.data.num_classes - others, run.input)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, first[name]) != (others and name.startswith('fc.')), name


def command(folder: Path, *flags: str) -> list[str]:
    return [
        sys.executable,
        '-m',
        'sfsc_timm.train',
        *flags,
        '--output',
        str(folder.parent),
        '--experiment',
        folder.name,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, 'OMP_NUM_THREADS': '1'}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if path.is_file() or process.poll() is not None:
            return
        time.sleep(0.05)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT], ids=['SIGKILL', 'SIGINT'])
def test_a_process_that_is_stopped_from_outside(number: signal.Signals, tmp_path: Path) -> None:
    epochs = 6  # long enough for the signal to come in time on a busy machine
    changes = {'epochs': epochs, 'checkpoint_interval': 1, 'recipe_kwargs': {'teacher': 0}}
    settings = {**SETTINGS, **changes}
    write_config(TrainConfig(**settings), tmp_path / 'settings.yaml')
    config = ('--config', str(tmp_path / 'settings.yaml'))
    with subprocess.Popen(
        command(tmp_path / 'cut', *config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        wait_for(tmp_path / 'cut/last.pth.tar', process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f'--resume {tmp_path / "cut"}' in errors
    done = load_checkpoint(tmp_path / 'cut/last.pth.tar')['sfsc_train']['loop']['updates']
    assert done < epochs * 4
    finished = subprocess.run(
        [sys.executable, '-m', 'sfsc_timm.train', '--resume', str(tmp_path / 'cut')],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    start(tmp_path / 'whole', **changes)
    assert not same_states(*(load_checkpoint(tmp_path / name / 'last.pth.tar') for name in ('whole', 'cut')))


@pytest.mark.parametrize('own_batches', [False, True])
def test_two_processes(own_batches: bool, tmp_path: Path) -> None:
    changes = {'batch_size': 16, 'num_instances': 4, 'recipe_kwargs': {'teacher': 0, 'own_batches': own_batches}}
    write_config(TrainConfig(**{**SETTINGS, **changes}), tmp_path / 'settings.yaml')
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    flags = command(tmp_path / 'run', '--config', str(tmp_path / 'settings.yaml'))[1:]
    done = subprocess.run([*torchrun, *flags], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    state = load_checkpoint(tmp_path / 'run/last.pth.tar')
    assert len(state['sfsc_train']['generators']['cpu']) == 2
    assert state['sfsc_train']['loop']['epoch'] == 2
    with pytest.raises(ValueError, match='on 2 processes'):
        go_on(tmp_path / 'run')


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_images_are_left_out(workers: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ['path,identity,camera,split']
    for number in range(64):
        split = ('train', 'train', 'query', 'gallery')[number % 4]
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
        rows.append(f'{number}.png,{split == "train"}-{number // 4 % 4},{number // 16 % 2},{split}')
    for number in (1, 2, 3):
        (tmp_path / f'{number}.png').write_bytes(b'cut off')
    (tmp_path / 'manifest.csv').write_text('\n'.join(rows))
    changes = {
        'data': 'manifest',
        'data_dir': str(tmp_path / 'manifest.csv'),
        'data_kwargs': {},
        'model_kwargs': {**SETTINGS['model_kwargs'], 'in_chans': 3},
        'batch_size': 8,
        'workers': workers,
        'num_instances': 2,
    }
    matrix = start(tmp_path / 'run', **changes, on_error='skip')
    assert matrix.mAP.shape == (2, 2)
    with pytest.raises(OSError, match=r'Cannot read the image .*\d\.png'):
        start(tmp_path / 'strict', **changes)


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in: its client wants an account."""
    calls: list[Any] = []

    class Client:
        def log(self, values: dict[str, float]) -> None:
            calls.append(values)

        def finish(self) -> None:
            calls.append('finished')

    def init(**options: Any) -> Client:
        calls.append(options)
        return Client()

    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init))
    report = WandB(tmp_path, 'run', 'project', {'lr': 0.1})
    start(tmp_path / 'run', report, epochs=1, warmup_epochs=0, recipe_kwargs={'teacher': 0})
    report.close()
    options, row, end = calls
    assert (options['project'], options['id'], options['resume']) == ('project', 'run', 'allow')
    assert row['epoch'] == 1
    assert {'loss_0.5', 'conflict_rate', 'mAP_cross', 'lr'} <= row.keys()
    assert end == 'finished'
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(ImportError, match=r'sfsc-timm\[wandb\]'):
        WandB(tmp_path, 'run', 'project', {})
