"""Runs that go on: with the settings and data that they began with, and with nothing lost at any kill."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_runs import SETTINGS, same_states
from PIL import Image

from sfsc_timm.cli.main import main
from sfsc_timm.training import Loop, Report, TrainConfig, TrainingRun, network, read_config, resume_config
from sfsc_timm.training.checkpoint import load_checkpoint
from sfsc_timm.training.origin import words_on_bits

# What is tested here is the same in both stages; that the first is resumed, test_training_run tests.
SETTINGS = {**SETTINGS, 'recipe_kwargs': {'teacher': 0}}


class StopAt(Report):
    """Ends a run as abruptly as a process can, from inside."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_step(self, loop: Loop) -> None:
        if loop.updates == self.update:
            raise SystemExit('pulled the plug')


def start(folder: Path, report: Report | None = None, **changes: Any) -> Any:
    return TrainingRun(TrainConfig(**{**SETTINGS, **changes}), folder, report).run()


def go_on(folder: Path, extend: int | None = None, report: Report | None = None, **changes: Any) -> Any:
    config, found = resume_config(folder, changes, extend)
    return TrainingRun(config, found, report, resume=True, extend=extend is not None).run()


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / 'summary.csv').open()))


@pytest.mark.parametrize('eval_interval, epoch', [(1, 1), (0, 2)])
@pytest.mark.parametrize('lost', ['write_csv', 'keep_best'])
def test_killed_between_the_state_and_what_follows_from_it(
    eval_interval: int, epoch: int, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state after the first evaluation, the best so far, was saved; its row, its link, or both were not."""
    folder = tmp_path / 'run'
    done = getattr(network, lost)

    def killed(*args: Any) -> None:
        if load_checkpoint(folder / 'last.pth.tar')['epoch'] == epoch - 1:
            raise SystemExit('pulled the plug')
        done(*args)

    with monkeypatch.context() as patch:
        patch.setattr(network, lost, killed)
        with pytest.raises(SystemExit):
            start(folder, eval_interval=eval_interval)
    last = load_checkpoint(folder / 'last.pth.tar')
    assert not (folder / 'model_best.pth.tar').exists()
    if epoch == 2:
        go_on(folder)
    else:
        with pytest.raises(SystemExit):
            go_on(folder, report=StopAt(5))  # the first step of the second epoch
    assert [float(row['epoch']) for row in rows(folder)] == list(range(1, epoch + 1))
    assert not same_states(load_checkpoint(folder / 'model_best.pth.tar'), last)


def test_the_best_checkpoint_stays_if_the_last_one_is_not_better(tmp_path: Path) -> None:
    start(tmp_path / 'run', eval_interval=1)
    best = tmp_path / 'run/model_best.pth.tar'
    content = torch.load(best, weights_only=False)
    content['sfsc_train']['is_best'] = False
    torch.save(content, tmp_path / 'run/last.pth.tar')
    before = best.stat().st_ino
    go_on(tmp_path / 'run')
    assert best.stat().st_ino == before


def test_what_a_killed_save_left_is_swept(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        start(tmp_path / 'run', StopAt(2), checkpoint_interval=1)
    leftover = tmp_path / 'run/.last.pth.tar.99999999.tmp'
    leftover.write_bytes(b'half')
    ours = tmp_path / f'run/.other.{os.getppid()}.tmp'
    ours.touch()
    go_on(tmp_path / 'run')
    assert not leftover.exists()
    assert ours.exists()


@pytest.mark.parametrize('is_old', [False, True], ids=['now', 'of before'])
@pytest.mark.parametrize(
    'name, value, message',
    [
        ('lr', 0.2, r'lr must be 0\.05, by which the run was trained so far, got 0\.2; set it back'),
        ('momentum', 0.5, r'momentum must be 0\.9'),
        ('seed', 7, 'seed must be 42'),
        ('data_kwargs', {'train_identities': 10, 'test_identities': 6}, 'data_kwargs must be .*12.*, got .*10'),
        ('recipe', 'sum', "recipe must be 'sfsc', .* got 'sum'"),
        ('epochs', 3, r'epochs must be 2, .* got 3; --extend 3 goes on'),
    ],
)
def test_settings_edited_between(is_old: bool, name: str, value: Any, message: str, interrupted: Path) -> None:
    import yaml

    if is_old:
        last = interrupted / 'last.pth.tar'
        content = torch.load(last, weights_only=False)
        del content['sfsc_train']['origin']
        torch.save(content, last)
    settings = {**read_config(interrupted / 'args.yaml'), name: value}
    (interrupted / 'args.yaml').write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=message):
        resume_config(interrupted, {})


@pytest.fixture(scope='module')
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('cut') / 'run'
    with pytest.raises(SystemExit):
        start(folder, StopAt(3), checkpoint_interval=1)
    return folder


@pytest.fixture
def interrupted(cut: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut, tmp_path / 'run'))


def test_a_run_that_was_not_resumed_by_its_settings_file(interrupted: Path) -> None:
    """Whoever makes the run by hand is checked, too, before anything is trained."""
    config = TrainConfig(**{**SETTINGS, 'lr': 0.1, 'checkpoint_interval': 1})
    with pytest.raises(ValueError, match=r'lr must be 0\.05'):
        TrainingRun(config, interrupted, resume=True).run()


def test_what_may_change(interrupted: Path) -> None:
    config, _ = resume_config(interrupted, {'workers': 1, 'threads': 2, 'output': 'elsewhere', 'device': 'cpu'})
    assert (config.workers, config.threads, config.output) == (1, 2, 'elsewhere')


def test_other_threads_get_a_word() -> None:
    now = {'machine': {'threads': 1, 'device': 'cpu'}}
    assert words_on_bits(now, now) is None
    assert words_on_bits(None, now) is None
    words = words_on_bits({'machine': {'threads': 4, 'device': 'cpu'}}, now)
    assert words == ('threads: 4 before, 1 now; the last bits may differ from those of a run without the interruption')


def photographs(root: Path) -> None:
    """Six identities, the last three for the test, in folders."""
    rng = np.random.default_rng(0)
    for split, names in (('train', 'abc'), ('test', 'def')):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f'{number}.png')


@pytest.fixture(scope='module')
def cut_on_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('files')
    photographs(folder / 'data')
    model = {**SETTINGS['model_kwargs'], 'in_chans': 3}
    changes = {'data': 'folder', 'data_dir': str(folder / 'data'), 'data_kwargs': {}, 'model_kwargs': model}
    with pytest.raises(SystemExit):
        start(folder / 'run', StopAt(3), checkpoint_interval=1, batch_size=4, preload=True, **changes)
    return folder


def _remove(root: Path) -> None:
    (root / 'train/a/0.png').unlink()


def _swap(root: Path) -> None:
    (root / 'train/a').rename(root / 'train/z')


def _repaint(root: Path) -> None:
    Image.new('RGB', (16, 16)).save(root / 'test/d/0.png')


@pytest.mark.parametrize(
    'change, message',
    [
        (_remove, '12 images of 3 identities in train, but got 11 images of 3 identities'),
        (_swap, '12 images of 3 identities in train, but files, labels or their order differ'),
        (_repaint, '12 images of 3 identities in query, but files, labels or their order differ'),
    ],
)
def test_other_data_are_refused(
    change: Callable[[Path], None], message: str, cut_on_files: Path, tmp_path: Path
) -> None:
    shutil.copytree(cut_on_files, tmp_path / 'copy')
    change(tmp_path / 'copy/data')
    with pytest.raises(ValueError, match=f'data must be what the run began with, {message}'):
        go_on(tmp_path / 'copy/run', data_dir=str(tmp_path / 'copy/data'))


def test_data_may_move(cut_on_files: Path, tmp_path: Path) -> None:
    shutil.copytree(cut_on_files, tmp_path / 'copy')
    moved = go_on(tmp_path / 'copy/run', data_dir=str(tmp_path / 'copy/data'))
    assert moved.mAP.shape == (2, 2)


def test_more_epochs_by_extend_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(tmp_path / 'run')
    planned = load_checkpoint(tmp_path / 'run/last.pth.tar')
    with pytest.raises(ValueError, match=r'epochs was 2 in the run .*--extend'):
        resume_config(tmp_path / 'run', {'epochs': 4})
    with pytest.raises(ValueError, match='extend must be more than the 2 epochs of the run, got 2'):
        resume_config(tmp_path / 'run', {}, 2)
    go_on(tmp_path / 'run', extend=4)
    assert '2 epochs were planned, 4 are trained' in caplog.text
    assert 'follow the schedule of 4' in caplog.text
    assert [row['epoch'] for row in rows(tmp_path / 'run')] == ['1.0', '2.0', '3.0', '4.0']
    extended = load_checkpoint(tmp_path / 'run/last.pth.tar')
    assert extended['sfsc_train']['loop']['updates'] == 2 * planned['sfsc_train']['loop']['updates']
    assert float(rows(tmp_path / 'run')[2]['lr']) > float(rows(tmp_path / 'run')[1]['lr']), 'the schedule of four'
    assert read_config(tmp_path / 'run/args.yaml')['epochs'] == 4
    resume_config(tmp_path / 'run', {})


def test_extend_on_the_command_line(capsys: pytest.CaptureFixture[str], interrupted: Path) -> None:
    assert main(['train', '--extend', '3', '--data', 'glyphs']) == 1
    assert '--extend must come with --resume' in capsys.readouterr().err
    assert main(['train', '--resume', str(interrupted), '--extend', '2']) == 1
    assert 'extend must be more than the 2 epochs' in capsys.readouterr().err
