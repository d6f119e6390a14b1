"""A process that is killed while it saves over older folders: at every step, a whole model is left to be loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import tiny

from sfsc_timm.checkpoints import folders as folders_module
from sfsc_timm.checkpoints import load_checkpoint_model, save_model, save_width, save_widths, space_id
from sfsc_timm.hub import load_width


class Killed(BaseException):
    """Nothing that the process does comes after this."""


def mortal(monkeypatch: pytest.MonkeyPatch, deadly: int) -> None:
    """From the step of that number on (renames and deletions of folders), the process does nothing any more."""
    steps = [0]

    def wrap(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            steps[0] += 1
            if steps[0] > deadly:
                raise Killed
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(os, 'replace', wrap(os.replace))
    monkeypatch.setattr(shutil, 'rmtree', wrap(shutil.rmtree))


@pytest.fixture(scope='module')
def models() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return tiny(0), tiny(1)


@pytest.mark.parametrize('deadly', range(4))
def test_killed_at_each_step(
    models: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: int
) -> None:
    old, new = models
    save_widths(old, tmp_path)
    with monkeypatch.context() as patch:
        mortal(patch, deadly)
        with pytest.raises(Killed):
            save_width(new, 0.5, tmp_path / 'w0.5')
    # The width is there, the old one or the new one, by itself and (the old one) with the others.
    state = load_checkpoint_model(tmp_path / 'w0.5').space
    assert state == space_id(old if deadly < 2 else new)
    assert load_width(tmp_path / 'w0.5', 0.5) is not None
    if deadly < 2:
        assert load_checkpoint_model(tmp_path).widths == old.widths
    # The next save puts everything in order.
    monkeypatch.setattr(folders_module, '_lives', lambda process: False)  # in truth it was this process
    save_widths(new, tmp_path)
    assert load_checkpoint_model(tmp_path).space == space_id(new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['w0.25', 'w0.5', 'w0.75', 'w1']


def test_what_earlier_versions_left_behind_is_passed_over_and_swept(models: tuple[Any, Any], tmp_path: Path) -> None:
    """They wrote to a folder of that name, whole or not."""
    old, new = models
    save_widths(old, tmp_path)
    shutil.copytree(save_width(new, 0.5, tmp_path / 'elsewhere/w0.5'), tmp_path / '.w0.5-k3_x91az')
    shutil.rmtree(tmp_path / 'elsewhere')
    assert load_checkpoint_model(tmp_path).space == space_id(old)
    save_widths(old, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['w0.25', 'w0.5', 'w0.75', 'w1']


def test_a_save_beside_a_living_one_leaves_it_alone(models: tuple[Any, Any], tmp_path: Path) -> None:
    other = tmp_path / f'.whole-{os.getppid()}-abcdefgh'
    other.mkdir()
    (tmp_path / '.whole-other').mkdir()  # somebody's own
    save_model(models[0], tmp_path / 'whole')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, '.whole-other', 'whole'])


def test_an_error_in_the_second_rename_brings_the_old_folder_back(
    models: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = models
    save_model(old, tmp_path / 'whole')
    replace, calls = os.replace, []

    def fail_once(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError('disk')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail_once)
    with pytest.raises(OSError, match='disk'):
        save_model(new, tmp_path / 'whole')
    assert [path.name for path in tmp_path.iterdir()] == ['whole']
    assert load_checkpoint_model(tmp_path / 'whole').space == space_id(old)
