"""`sfsc-timm gallery`, and `index` and `search` with the Lance store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import paint, save_whole, tiny

from sfsc_timm.cli.main import main
from sfsc_timm.retrieval import Gallery, LanceGallery

pytest.importorskip('rich')


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, 8 pictures of two identities and two cameras, a manifest, and a safetensors gallery."""
    root = tmp_path_factory.mktemp('made')
    save_whole(tiny(), root / 'whole')
    files = paint(root / 'photos', identities=2)
    lines = [f'{f.relative_to(root)},{f.parent.name},{f.stem[-1]},test,x{i}' for i, f in enumerate(files)]
    (root / 'm.csv').write_text('\n'.join(['path,identity,camera,split,note', *lines]) + '\n')
    assert index(root, 'gallery', str(root / 'photos')) == 0
    return root


def index(root: Path, output: str, *arguments: str) -> int:
    command = ['index', '--checkpoint', str(root / 'whole'), '--output', str(root / output), '--device', 'cpu']
    return main([*command, *arguments])


def matches(root: Path, gallery: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    command = ['search', str(root / gallery), str(root / 'photos/id0/0_c0.png'), '--checkpoint', str(root / 'whole')]
    capsys.readouterr()
    assert main([*command, '--device', 'cpu', '--json', *arguments]) == 0
    result = json.loads(capsys.readouterr().out)['results'][0]['matches']
    return [Path(match['path']).relative_to((root / 'photos').resolve()).as_posix() for match in result]


def test_items_go_by_file_and_by_folder(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / 'gallery', tmp_path / 'g')
    gallery = str(tmp_path / 'g')
    assert main(['gallery', 'rm', gallery, str(made / 'photos/id0'), 'nowhere']) == 1
    assert "an item of the gallery, or a folder of some, got 'nowhere'" in capsys.readouterr().err
    assert len(Gallery(gallery)) == 8
    assert main(['gallery', 'rm', gallery, str(made / 'photos/id0'), str(made / 'photos/id1/0_c0.png')]) == 0
    assert '5 items out, 3 left' in capsys.readouterr().out
    assert main(['gallery', 'merge', gallery, str(made / 'gallery')]) == 1
    assert '3 items of' in capsys.readouterr().err
    assert main(['gallery', 'merge', gallery, str(made / 'gallery'), '--existing', 'skip']) == 0
    assert sorted(Gallery(gallery).paths) == sorted(Gallery(made / 'gallery').paths)
    assert main(['gallery', 'info', gallery]) == 0
    assert 'items: 8\n' in capsys.readouterr().out
    assert main(['gallery', 'root', gallery, '/mnt']) == 1
    assert 'root is for Lance galleries' in capsys.readouterr().err


@pytest.mark.lance
def test_lance_from_a_manifest(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('lancedb')
    from_manifest = ('--data', 'manifest', '--data-dir', str(made / 'm.csv'), '--crop-mode', 'center')
    assert index(made, 'lance', *from_manifest, '--store', 'lance') == 0
    assert LanceGallery(made / 'lance').columns == ('identity', 'camera', 'note')
    assert matches(made, 'lance', capsys, '--width', '1') == matches(made, 'gallery', capsys, '--width', '1')
    some = matches(made, 'lance', capsys, '--where', "camera = 1 and identity = 'id1'", '--root', str(made))
    assert sorted(some) == ['id1/1_c1.png', 'id1/3_c1.png']
    table = (made / 'm.csv').read_text()
    (made / 'm.csv').write_text(table.replace(',x5', ',other').replace(',id0,', ',id9,'))
    assert index(made, 'lance', *from_manifest) == 0  # which tells the store by what is there
    assert '8 images, 8 of them in the gallery already' in capsys.readouterr().out
    assert matches(made, 'lance', capsys, '--where', "note = 'other'") == ['id1/1_c1.png']
    assert len(matches(made, 'lance', capsys, '--where', 'identity = "id9"')) == 4
    for arguments, reason in (
        (['--where', 'town = 3'], "got 'town'"), (['--where', 'camera = 3; x'], 'got'), (['--faiss'], '--faiss is for'),
    ):  # fmt: skip
        assert main(['search', str(made / 'lance'), str(made / 'photos'), '--checkpoint', str(made / 'whole'),
                     *arguments]) == 1  # fmt: skip
        assert reason in capsys.readouterr().err
    (made / 'photos/id0/3_c1.png').unlink()
    assert index(made, 'lance', str(made / 'photos'), '--gone', 'drop') == 0
    assert '1 files are gone: dropping their items' in capsys.readouterr().out
    assert index(made, 'lance', str(made / 'photos'), '--store', 'safetensors') == 1
    assert '--store safetensors is for folders of files' in capsys.readouterr().err
    assert index(made, 'gallery', str(made / 'photos'), '--store', 'lance') == 1
    assert '--output must be free for --store lance' in capsys.readouterr().err


@pytest.mark.lance
def test_galleries_are_converted_and_moved(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('lancedb')
    lance = str(tmp_path / 'lance')
    assert main(['gallery', 'convert', str(made / 'gallery'), lance]) == 0
    assert main(['gallery', 'optimize', lance]) == 0
    assert 'no index: every item is compared' in capsys.readouterr().out
    assert main(['gallery', 'optimize', lance, '--ann', 'ivf_pq']) == 1
    assert 'an index needs at least 256 items, got 8' in capsys.readouterr().err
    assert main(['gallery', 'export', lance, str(tmp_path / 'items.parquet')]) == 0
    assert main(['gallery', 'convert', lance, str(tmp_path / 'back')]) == 0
    back, before = Gallery(tmp_path / 'back'), Gallery(made / 'gallery')
    assert (back.paths, back.states, back.info) == (before.paths, before.states, before.info)
    assert torch.equal(back.embeddings(), before.embeddings())
    assert main(['gallery', 'root', lance, str(tmp_path / 'elsewhere')]) == 0
    assert LanceGallery(lance).paths[0] == str(tmp_path / 'elsewhere/id0/0_c0.png')
    assert main(['gallery', 'info', lance]) == 0
    assert f'root: {tmp_path / "elsewhere"}\n' in capsys.readouterr().out.replace('\n\n', '\n')
