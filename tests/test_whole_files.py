"""Files that are there whole or not at all: what a kill leaves, and what a power cut may not take."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sfsc_timm._files import replacing, scratch_folder, sweep_leftovers

KILLED = """
import os, signal, sys
from pathlib import Path
from sfsc_timm._files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / 'last.pth.tar'
    path.write_text('before')
    with subprocess.Popen([sys.executable, '-c', KILLED, str(path)]) as process:
        process.wait(60)
    leftover = f'.last.pth.tar.{process.pid}.tmp'
    assert names(tmp_path) == {'last.pth.tar', leftover}
    with replacing(tmp_path / 'other.json') as temporary:
        temporary.write_text('{}')
    assert leftover in names(tmp_path), 'each file sweeps its own'
    with replacing(path) as temporary:
        temporary.write_text('after')
    assert names(tmp_path) == {'last.pth.tar', 'other.json'}
    assert path.read_text() == 'after'


def test_files_of_living_processes_and_of_other_programs_stay(tmp_path: Path) -> None:
    kept = {f'.a.{os.getppid()}.tmp', '.a.tmp', 'a.1.tmp', '.a.x.tmp', '.a.99999999.bak'}
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / '.a.99999999.tmp').touch()
    (tmp_path / '.b.99999999999999999999.tmp').touch()
    sweep_leftovers(tmp_path)
    assert names(tmp_path) == kept
    sweep_leftovers(tmp_path / 'nowhere')


KILLED_IN_SCRATCH = """
import os, signal
from sfsc_timm._files import scratch_folder
with scratch_folder('publish') as folder:
    (folder / 'model.safetensors').write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_folders_of_killed_processes_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    environment = {**os.environ, 'TMPDIR': str(tmp_path)}
    with subprocess.Popen([sys.executable, '-c', KILLED_IN_SCRATCH], env=environment) as process:
        process.wait(60)
    others = {name for name in names(tmp_path) if not name.startswith('sfsc-')}  # of libraries
    (left,) = names(tmp_path) - others
    assert left.startswith(f'sfsc-publish-{process.pid}-')
    kept = {f'sfsc-publish-{os.getppid()}-abcdefgh', 'sfsc-publish-mine', f'sfsc-other-{process.pid}-abcdefgh'}
    for name in kept:
        (tmp_path / name).mkdir()
    with scratch_folder('publish') as folder:
        assert names(tmp_path) - others == {*kept, folder.name}
        assert not names(folder)
    assert names(tmp_path) - others == kept


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_text('before')

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text('half')
            raise RuntimeError('no')

    with pytest.raises(RuntimeError, match='no'):
        fail()
    assert names(tmp_path) == {'file'}
    assert path.read_text() == 'before'


def test_content_and_name_are_on_the_disk_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is what a power cut asks for: content, then name, then folder."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append(Path(os.readlink(f'/proc/self/fd/{handle}')).name)
        sync(handle)

    def renamed(source: Path, target: Path) -> None:
        done.append('renamed')
        rename(source, target)

    if not Path('/proc/self/fd').is_dir():
        pytest.skip('names of open files are asked from Linux')
    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', renamed)
    with replacing(tmp_path / 'file') as temporary:
        temporary.write_text('after')
    assert done == [f'.file.{os.getpid()}.tmp', 'renamed', tmp_path.name]
