"""What a gallery notes of its files, and what it finds when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sfsc_timm.retrieval import Gallery, GalleryInfo, find_changes, state_since, times_of


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Of files a, b and c; nothing is noted of the fourth, d."""
    paths = [str(tmp_path / name) for name in 'abcd']
    for path in paths:
        Path(path).write_text(f'content of {Path(path).name}')
    times = times_of(paths)
    gallery = Gallery.create(tmp_path / 'gallery', GalleryInfo('m', 1.0, 2, 'abc'))
    gallery.append(paths, torch.ones(4, 2), [*(state_since(path, times[path]) for path in paths[:3]), None])
    return gallery


def found(gallery: Gallery, verify: bool) -> list[str]:
    changes = find_changes(Gallery(gallery.folder), verify)
    return [''.join(Path(path).name for path in paths) for paths in (changes.changed, changes.gone, changes.unknown)]


@pytest.mark.parametrize('verify', [False, True])
def test_changed_and_missing_files(gallery: Gallery, tmp_path: Path, verify: bool) -> None:
    assert found(gallery, verify) == ['', '', 'd']
    (tmp_path / 'a').write_text('something else')
    (tmp_path / 'c').unlink()
    assert found(gallery, verify) == ['a', 'c', 'd']
    (tmp_path / 'd').unlink()
    assert found(gallery, verify) == ['a', 'cd', '']


def test_only_the_content_tells_what_size_and_time_do_not(gallery: Gallery, tmp_path: Path) -> None:
    before = (tmp_path / 'b').stat()
    (tmp_path / 'b').write_text('c0ntent of b')
    os.utime(tmp_path / 'b', ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / 'a').touch()
    assert found(gallery, verify=False) == ['a', '', 'd']
    assert found(gallery, verify=True) == ['b', '', 'd']


def test_a_file_that_changes_while_it_is_embedded_is_found_next_time(gallery: Gallery, tmp_path: Path) -> None:
    file = tmp_path / 'a'
    times = times_of([str(file), str(tmp_path / 'nowhere')])
    assert list(times) == [str(file)]
    file.write_text('changed between reading and noting')
    state = state_since(str(file), times[str(file)])
    gallery.append([str(file)], torch.ones(1, 2), [state], existing='replace')
    for verify in (False, True):
        assert found(gallery, verify)[0] == 'a'
    file.unlink()
    assert state_since(str(file), times[str(file)]) == state
