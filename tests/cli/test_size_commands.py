"""Embedding sizes on the command line: smaller galleries, queries cut to them, the matrix of each size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.checkpoints import DATA_CONFIG, paint, tiny

from sfsc_timm.checkpoints import load_checkpoint_model, save_model, save_width, space_id
from sfsc_timm.cli.main import main
from sfsc_timm.data import Preprocessing, Sample, batches
from sfsc_timm.evaluation import CompatibilityMatrix, by_size, embed
from sfsc_timm.export import write_preprocessing
from sfsc_timm.hub import prepare
from sfsc_timm.retrieval import Gallery

pytest.importorskip('rich')
pytest.importorskip('matplotlib')
SIZES = (4, 8, 16)


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[Path]]:
    root = tmp_path_factory.mktemp('saved')
    model = tiny(embed_dims=SIZES)
    save_model(model, root / 'whole', data_config=DATA_CONFIG)
    save_width(model, 0.25, root / 'w0.25', data_config=DATA_CONFIG)
    save_width(model, 0.25, root / 'short', data_config=DATA_CONFIG, dim=8)
    save_model(tiny(), root / 'plain', data_config=DATA_CONFIG)
    return model, root, paint(root / 'photos', identities=6)


def run(command: str, root: Path, checkpoint: str, *arguments: object) -> int:
    return main([command, '--checkpoint', str(root / checkpoint), '--device', 'cpu', *map(str, arguments)])


def embeddings(model: Any, files: list[Path], width: float) -> torch.Tensor:
    transform = Preprocessing((3, 32, 32), DATA_CONFIG['mean'], DATA_CONFIG['std']).transform()
    return embed(model, batches([Sample(file, 0) for file in files], transform), [width])[width]


def index(root: Path, output: Path, *arguments: object, checkpoint: str = 'whole') -> int:
    return run('index', root, checkpoint, root / 'photos', '--output', output, *arguments)


def test_a_smaller_gallery_is_searched_as_by_brute_force(
    saved: tuple[Any, Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, root, files = saved
    assert index(root, tmp_path / 'g', '--dim', 8) == 0
    assert '24 items at width 1, 8 numbers each' in capsys.readouterr().out
    gallery = Gallery(tmp_path / 'g')
    assert (gallery.info.embed_dim, gallery.info.space_id) == (8, space_id(model))
    whole = embeddings(model, files, 1.0)
    torch.testing.assert_close(gallery.embeddings(), whole[:, :8], rtol=1e-4, atol=1e-5)
    scores = F.normalize(embeddings(model, files[:3], 0.25)[:, :8], dim=1) @ F.normalize(whole[:, :8], dim=1).T
    for checkpoint in ('whole', 'w0.25', 'short'):
        arguments = [tmp_path / 'g', *files[:3], '--width', 0.25, '-k', 5, '--json']
        assert run('search', root, checkpoint, *arguments) == 0
        results = json.loads(capsys.readouterr().out)['results']
        for row, found in zip(scores, results, strict=True):
            values, items = row.topk(5)
            assert [match['path'] for match in found['matches']] == [str(files[i].resolve()) for i in items]
            assert [match['score'] for match in found['matches']] == pytest.approx(values.tolist(), abs=1e-4)


def test_what_cannot_be_compared_is_refused(
    saved: tuple[Any, Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, root, files = saved
    assert index(root, tmp_path / 'long') == 0
    assert index(root, tmp_path / 'short', '--dim', 8) == 0
    capsys.readouterr()
    assert run('search', root, 'short', tmp_path / 'long', files[0], '--force') == 1
    refused = capsys.readouterr().err
    assert 'query embeddings have 8 numbers, those of gallery' in refused
    assert 'Embed them by a checkpoint of 16 numbers, or index the gallery again with --dim 8' in refused
    assert run('search', root, 'plain', tmp_path / 'short', files[0]) == 1
    assert 'Load it with its embed_dims' in capsys.readouterr().err
    assert index(root, tmp_path / 'short', '--dim', 4) == 1
    assert 'already holds a gallery' in capsys.readouterr().err
    assert index(root, tmp_path / 'none', '--dim', 5) == 1
    assert 'dim must be one of (4, 8, 16), got 5' in capsys.readouterr().err
    assert not (tmp_path / 'none').exists()


def test_the_matrix_of_each_size(
    saved: tuple[Any, Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, root, _ = saved
    data = ['--data', 'folder', '--data-dir', root / 'photos', '--output']
    assert run('eval', root, 'whole', *data, tmp_path / 'all', '--dims') == 0
    shown = capsys.readouterr().out
    assert '4 numbers' in shown
    assert '8 (32 B)' in shown
    values = json.loads((tmp_path / 'all/matrix.json').read_text())
    assert list(values['by_dim']) == ['4', '8', '16']
    assert values['by_dim']['16']['mAP'] == values['mAP']
    assert [values['by_dim'][size]['bytes_per_item'] for size in ('4', '8', '16')] == [16, 32, 64]
    assert values['by_dim']['4']['params'][0] == values['params'][0] - 12 * (64 * 0.25 + 1)
    assert run('eval', root, 'whole', *data, tmp_path / 'one', '--dims', 8) == 0
    assert json.loads((tmp_path / 'one/matrix.json').read_text())['mAP'] == values['by_dim']['8']['mAP']
    capsys.readouterr()
    assert run('eval', root, 'whole', *data, tmp_path / 'none', '--dims', 5) == 1
    assert '--dims must be among (4, 8, 16), the sizes that were trained (embed_dims), got (5,)' in (
        capsys.readouterr().err
    )
    # The card shows them.
    matrix = tmp_path / 'all/matrix.json'
    prepare(root / 'whole', 'user/name', tmp_path / 'card', matrix=matrix)
    text = (tmp_path / 'card/main/README.md').read_text()
    assert 'The first 4 or 8 of the 16 numbers are an embedding of their own' in text
    cells = by_size(CompatibilityMatrix.from_dict(values))[8].mAP
    assert f'{cells[0, 0]:.1f} / {cells[0, 3]:.1f}' in text
    configs = [json.loads((tmp_path / f'card/{name}/config.json').read_text())['sfsc'] for name in ('main', 'w0.25')]
    assert [config['embed_dims'] for config in configs] == [list(SIZES)] * 2


def test_sizes_beside_an_exported_model(saved: tuple[Any, Path, list[Path]], tmp_path: Path) -> None:
    _, root, _ = saved
    for checkpoint, dim, sizes in (('whole', None, [4, 8, 16]), ('whole', 8, [4, 8]), ('plain', None, None)):
        path = write_preprocessing(tmp_path / 'p.json', load_checkpoint_model(root / checkpoint), 0.25, dim)
        assert json.loads(path.read_text())['output'].get('sizes') == sizes


def test_an_exported_model_is_as_small(
    saved: tuple[Any, Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is another test's; here it is what it is given."""
    model, root, _ = saved
    given: list[Any] = []

    def keep(dense: Any, path: Path, *_: Any, **__: Any) -> Path:
        given.append(dense)
        path.parent.mkdir(parents=True)
        path.write_bytes(b'')
        return path

    monkeypatch.setattr('sfsc_timm.export.export_onnx', keep)
    monkeypatch.setattr('sfsc_timm.export.onnx_session', lambda _: torch.neg)
    export = ['export', str(root / 'whole'), '--widths', '0.25', '--output', str(tmp_path / 'onnx'), '--device', 'cpu']
    assert main([*export, '--dim', '8']) == 0
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), model.at_width(0.25):
        torch.testing.assert_close(given[0](x), model.embed(x, dim=8), rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / 'onnx/w0.25/preprocessing.json').read_text())['output']['sizes'] == [4, 8]
    assert main([*export, '--dim', '9']) == 1
