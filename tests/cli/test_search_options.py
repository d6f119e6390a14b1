"""Codes, shortlists, thresholds and several images of one query, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.checkpoints import DATA_CONFIG, paint, tiny

from sfsc_timm.checkpoints import save_model
from sfsc_timm.cli.main import main
from sfsc_timm.retrieval import Gallery

pytest.importorskip('rich')
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    root = tmp_path_factory.mktemp('saved')
    save_model(tiny(embed_dims=(8, 16)), root / 'whole', data_config=DATA_CONFIG)
    files = paint(root / 'photos', identities=8)
    assert run('index', root, root / 'photos', '--output', root / 'g', '--dtype', 'int8', '--identities', 'folder') == 0
    return root, files


def run(command: str, root: Path, *arguments: object) -> int:
    return main([command, '--checkpoint', str(root / 'whole'), '--device', 'cpu', *map(str, arguments)])


def answer(saved: tuple[Path, list[Path]], capsys: Capture, *arguments: object, gallery: str = 'g') -> dict[str, Any]:
    capsys.readouterr()
    root, _ = saved
    assert run('search', root, root / gallery, *arguments, '--json') == 0, capsys.readouterr().err
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def found(result: dict[str, Any]) -> list[list[str]]:
    return [[match['path'] for match in entry['matches']] for entry in result['results']]


def test_a_shortlist_finds_what_the_whole_gallery_finds(saved: tuple[Path, list[Path]], capsys: Capture) -> None:
    _, files = saved
    whole = found(answer(saved, capsys, *files[:2], '-k', 5))
    for short in ([], ['--short', 8]):
        result = answer(saved, capsys, *files[:2], '-k', 5, '--shortlist', 32, *short, '--measure-recall')
        assert found(result) == whole
        assert result['recall@5'] == 1
        few = answer(saved, capsys, *files[:2], '-k', 5, '--shortlist', 5, *short, '--measure-recall')
        hits = sum(len(set(one) & set(two)) for one, two in zip(found(few), whole, strict=True))
        assert few['recall@5'] == hits / 10


def test_strangers_are_not_in_the_gallery(saved: tuple[Path, list[Path]], capsys: Capture, tmp_path: Path) -> None:
    root, files = saved
    result = answer(saved, capsys, *files, '-k', 3, '--threshold', 0.1, '--width', 1)
    threshold = result['threshold']
    assert (threshold['rate'], threshold['strangers']) == (0.1, 32)
    for entry in result['results']:
        assert entry['in_gallery'] == (entry['best']['score'] > threshold['score'])
        assert all(match['score'] > threshold['score'] for match in entry['matches'])
        assert entry['in_gallery']  # each image is there itself
    # Elsewhere, every image of the gallery is a stranger of the others.
    others = tmp_path / 'others'
    paint(others, identities=3, size=48)
    result = answer(saved, capsys, others, '--strangers', root / 'photos', '--threshold', 0.05, '--width', 1)
    assert result['threshold']['score'] > 0.999
    assert not any(entry['in_gallery'] or entry['matches'] for entry in result['results'])
    assert run('search', root, root / 'g', others / 'id0', '--strangers', root / 'photos', '--threshold', 0.05) == 0
    assert 'not in the gallery; the nearest of it scores' in capsys.readouterr().out


def test_several_images_of_one_query(saved: tuple[Path, list[Path]], capsys: Capture) -> None:
    _, files = saved
    for fuse in ('mean', 'best'):
        result = answer(saved, capsys, *files[:3], '--width', 1, '-k', 3, '--fuse', fuse)
        (entry,) = result['results']
        assert entry['query'] == [str(file) for file in files[:3]]
        assert len(entry['matches']) == 3
        if fuse == 'best':
            assert set(found(result)[0]) == {str(file.resolve()) for file in files[:3]}


def test_what_does_not_fit_is_refused(saved: tuple[Path, list[Path]], capsys: Capture, tmp_path: Path) -> None:
    root, files = saved
    assert run('index', root, root / 'photos' / 'id0', '--output', tmp_path / 'plain', '--dtype', 'binary') == 0
    for gallery, arguments, reason in (
        (tmp_path / 'plain', ['--threshold', 0.1], 'no two identities of the gallery are known'),
        (tmp_path / 'plain', ['--shortlist', 3, '--short', 8], "a binary gallery has a shortlist by 'binary'"),
        (root / 'g', ['--threshold', 2], '--threshold must be a false-accept rate in (0, 1)'),
        (root / 'g', ['--threshold', 0.01], 'must be at least 0.03 with 32 known strangers'),
        (root / 'g', ['--threshold', 0.1, '--fuse', 'mean'], '--threshold is of one image'),
        (root / 'g', ['--strangers', root], '--strangers is for --threshold'),
        (root / 'g', ['--short', 8], '--short is for --shortlist'),
        (root / 'g', ['--shortlist', 3, '--short', 5], '--short must be one of the sizes that were trained, (8,)'),
        (root / 'g', ['--shortlist', 3, '--faiss'], '--shortlist is for safetensors galleries'),
    ):
        assert run('search', root, gallery, files[0], *arguments) == 1
        assert reason in ' '.join(capsys.readouterr().err.split())


def test_identities_come_later_and_codes_are_made_of_floats(
    saved: tuple[Path, list[Path]], capsys: Capture, tmp_path: Path
) -> None:
    root, files = saved
    assert run('index', root, root / 'photos', '--output', tmp_path / 'g', '--dim', 8) == 0
    assert Gallery(tmp_path / 'g').columns == ()
    assert run('index', root, root / 'photos', '--output', tmp_path / 'g', '--dim', 8, '--identities', 'folder') == 0
    gallery = Gallery(tmp_path / 'g')
    assert [Path(path).parent.name for path in gallery.paths] == list(gallery.identities)
    assert main(['gallery', 'convert', str(tmp_path / 'g'), str(tmp_path / 'small'), '--dtype', 'int8']) == 0
    small = Gallery(tmp_path / 'small')
    assert (small.info.dtype, small.info.embed_dim, small.identities) == ('int8', 8, gallery.identities)
    assert run('search', root, tmp_path / 'small', files[0], '--width', 1, '-k', 1) == 0
    assert str(files[0].resolve()) in capsys.readouterr().out.replace('\n', '')
