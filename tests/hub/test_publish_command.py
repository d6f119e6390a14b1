"""`sfsc-timm publish` up to the network: what would be written, what the card says, what is measured and when."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.checkpoints import paint, save_training, save_whole, tiny
from huggingface_hub import ModelCardData

from sfsc_timm.checkpoints import compatibility_id, save_widths
from sfsc_timm.checkpoints import measurements as _measure
from sfsc_timm.checkpoints import source as source_module
from sfsc_timm.checkpoints.source import read_source
from sfsc_timm.cli import _options, evaluate
from sfsc_timm.cli.main import main
from sfsc_timm.evaluation import CompatibilityMatrix, si_number, update_gain_table
from sfsc_timm.evaluation.tables import update_gain
from sfsc_timm.hub import About, prepare
from sfsc_timm.hub import plan as _plan

pytest.importorskip('rich')
pytest.importorskip('matplotlib')

WIDTHS = ('0.25', '0.5', '0.75', '1')


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run as it leaves its folder, evaluated."""
    root = tmp_path_factory.mktemp('run')
    torch.set_num_threads(1)  # this comes before the fixture that does so for every test
    paint(root / 'photos', 4)
    save_training(tiny(1), root / 'last.pth.tar')
    save_training(tiny(), root / 'model_best.pth.tar')
    settings = {
        'model': 'sfsc_resnet18d',
        'data': 'photos',
        'data_dir': '/home/someone/photos',
        'lr': 0.1,
        'amp': False,
    }
    command = f'sfsc-timm train --data-dir {settings["data_dir"]} --lr 0.1'
    (root / 'args.yaml').write_text(yaml.safe_dump({**settings, 'command': command, 'resume': None}))
    data = ['--data', 'folder', '--data-dir', str(root / 'photos'), '--data-kwargs', 'train_share=0.3']
    evaluated = str(root / 'model_best.pth.tar')
    assert main(['eval', '--checkpoint', evaluated, '--output', str(root), *data]) == 0
    return root


def test_dry_run_shows_every_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'files'
    command = ['publish', str(run), '--repo', 'user/name', '--dry-run', '--output', str(out), '--license', 'mit']
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert compatibility_id(tiny()) in shown  # of the best checkpoint, not the last
    assert 'Nothing was written' in shown
    listed = sorted(path.relative_to(out).as_posix() for path in out.rglob('*') if path.is_file())
    whole = ['README.md', 'args.yaml', 'config.json', 'matrix.json', 'matrix.png', 'model.safetensors', 'widths.json']
    parts = [f'w{width}/{name}' for width in WIDTHS for name in ('README.md', 'config.json', 'model.safetensors')]
    assert listed == sorted([f'main/{name}' for name in whole] + parts)
    assert shown.count('model.safetensors') == 5
    assert shown.count('config.json') == 5
    assert main(command) == 1
    assert '--output must be an empty folder' in capsys.readouterr().err


def test_the_card(run: Path, tmp_path: Path) -> None:
    prepare(run, 'user/name', tmp_path, about=About(license='mit', data_license='ours'))
    text = (tmp_path / 'main' / 'README.md').read_text()
    _, head, body = text.split('---\n', 2)
    data = ModelCardData(**yaml.safe_load(head))
    assert (data.library_name, data.license, data.pipeline_tag) == ('timm', 'mit', 'image-feature-extraction')
    assert data.datasets == ['photos']
    assert {'sfsc', 'timm', 'image-retrieval'} <= set(data.tags or ())
    matrix = json.loads((run / 'matrix.json').read_text())
    results = yaml.safe_load(head)['model-index'][0]['results']
    metrics = [metric for result in results for metric in result['metrics']]
    assert len(metrics) == 16
    assert metrics[1]['name'] == 'mAP, query width 0.25, gallery width 0.5'
    assert metrics[1]['value'] == round(matrix['mAP'][0][1], 2)
    assert f'{matrix["mAP"][3][0]:.2f} / {matrix["rank1"][3][0]:.2f}' in body
    figures = CompatibilityMatrix.from_dict(matrix)
    assert f'cross-tests beat the weaker self-test; update gain {update_gain(figures)}.' in body
    assert update_gain_table(figures) in body
    published_matrix = json.loads((tmp_path / 'main' / 'matrix.json').read_text())
    for name in ('update_gain', 'update_gains', 'rerank'):  # null where there is none, not a word
        assert published_matrix[name] == matrix[name]
    costs = json.loads((run / 'measurements.json').read_text())[compatibility_id(tiny())]['widths']
    for width in WIDTHS:
        assert f'| `w{width}` | `resnet18d` | timm | {si_number(costs[width]["params"])} |' in body
        assert f"timm.create_model('hf-hub:user/name@w{width}', pretrained=True)" in body
        part = (tmp_path / f'w{width}' / 'README.md').read_text()
        assert f"timm.create_model('hf-hub:user/name@w{width}', pretrained=True)" in part
        assert 'Do not pass `num_classes`' in part
    first_code = body.split('```python\n')[1].split('```')[0]
    first_call = next(line for line in first_code.splitlines() if 'model(images)' in line)
    assert first_call == f'embedding = model(images)  # (B, {tiny().embed_dim}); without num_classes, see below'
    sections = [json.loads((tmp_path / name / 'config.json').read_text())['sfsc'] for name in ('main', 'w0.25', 'w1')]
    assert [section['embed_dim'] for section in sections] == [tiny().embed_dim] * 3
    assert 'sfsc-timm train --data-dir photos --lr 0.1' in body
    assert 'photos (terms: ours)' in body
    assert f'Compatibility id `{compatibility_id(tiny())}`' in body
    # Where things lay on this machine is nobody's business.
    published = [path for path in tmp_path.rglob('*') if path.suffix in ('.md', '.json', '.yaml')]
    assert not any('/home' in path.read_text() or str(run.parent) in path.read_text() for path in published)


def test_the_same_files_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(run, 'user/name', tmp_path / 'first')
    monkeypatch.setattr(_measure, 'latency', None)  # nothing is measured twice
    second = prepare(run, 'user/name', tmp_path / 'second')
    assert [branch.name for branch in first.branches] == [*(f'w{width}' for width in WIDTHS), 'main']
    for one, other in zip(first.branches, second.branches, strict=True):
        assert [(f.path, f.sha256) for f in one.files] == [(f.path, f.sha256) for f in other.files]


def test_another_size_is_measured_again(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / 'copy')
    prepare(copy, 'user/name', tmp_path / 'out', data_config={'img_size': 64})
    costs = json.loads((copy / 'measurements.json').read_text())[compatibility_id(tiny())]['widths']
    assert costs['0.25']['input_size'] == [3, 64, 64]
    (copy / 'measurements.json').write_text('{')
    with pytest.raises(ValueError, match=r'measurements\.json.* is damaged'):
        prepare(copy, 'user/name', tmp_path / 'again')


def test_accuracy_is_measured_where_it_is_not_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = save_whole(tiny(), tmp_path / 'whole')
    data = ['--data', 'folder', '--data-dir', str(run / 'photos'), '--data-kwargs', 'train_share=0.3']
    command = ['publish', str(whole), '--repo', 'user/name', '--dry-run', *data]
    with monkeypatch.context() as patch:
        loads: list[Any] = []
        load = source_module.load_checkpoint_model
        patch.setattr(source_module, 'load_checkpoint_model', lambda *a, **k: loads.append(a) or load(*a, **k))
        patch.setattr(_options, 'load_model', None)
        assert main(command) == 0
        assert len(loads) == 1, 'measured and published is one model, loaded once'
    measured = json.loads((whole / 'matrix.json').read_text())
    assert measured['checkpoints'][0]['compatibility'] == compatibility_id(tiny())
    assert (whole / 'matrix.png').is_file()
    monkeypatch.setattr(evaluate, 'measure', None)  # not again
    assert main(command) == 0
    save_whole(tiny(1), whole)  # other weights
    with pytest.raises(TypeError):
        main(command)
    capsys.readouterr()


def test_names_are_checked_before_anything_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = save_whole(tiny(), tmp_path / 'whole')
    monkeypatch.setattr(evaluate, 'measure', None)
    command = ['publish', str(whole), '--repo', 'nobody', '--dry-run', '--data', 'folder', '--data-dir', str(run)]
    assert main(command) == 1
    assert 'repo must be user/name' in capsys.readouterr().err


def test_accuracy_of_another_checkpoint_needs_a_note(run: Path, tmp_path: Path) -> None:
    source = save_training(tiny(1), tmp_path / 'last.pth.tar')
    with pytest.raises(ValueError, match=r'was measured on [0-9a-f]{32}, .*say in a note what the figures are of'):
        prepare(source, 'user/name', tmp_path / 'out', matrix=run / 'matrix.json')
    unnamed = json.loads((run / 'matrix.json').read_text())
    del unnamed['checkpoints']
    (tmp_path / 'unnamed.json').write_text(json.dumps(unnamed))
    with pytest.raises(ValueError, match='was measured on a checkpoint that it does not name'):
        prepare(source, 'user/name', tmp_path / 'out', matrix=tmp_path / 'unnamed.json')
    unnamed['compatibility'] = compatibility_id(tiny(1))
    (tmp_path / 'named.json').write_text(json.dumps(unnamed))
    assert read_source(source, tmp_path / 'named.json').of_this_model
    about = About(note='Of a sibling that saw half of the identities.')
    prepare(source, 'user/name', tmp_path / 'noted', about=about, matrix=run / 'matrix.json')
    text = (tmp_path / 'noted' / 'main' / 'README.md').read_text()
    assert 'Of a sibling that saw half of the identities.' in text
    assert 'model-index' not in text  # which is about this checkpoint


def test_onnx_goes_with_the_widths(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def export_onnx(model: Any, path: Path, input_size: Any) -> Path:
        sizes.append(sum(p.numel() for p in model.parameters()))
        path.write_bytes(b'onnx')
        return path

    monkeypatch.setattr(_plan, 'export_onnx', export_onnx)
    plan = prepare(run, 'user/name', tmp_path, onnx=True)
    for branch in plan.branches[:-1]:
        assert {'model.onnx', 'preprocessing.json'} <= {file.path for file in branch.files}
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 4
    assert json.loads((tmp_path / 'w0.5' / 'preprocessing.json').read_text())['width'] == 0.5
    assert '`model.onnx`' in (tmp_path / 'main' / 'README.md').read_text()


@pytest.mark.parametrize(
    'source, options, error, message',
    [
        ('none.pth.tar', {}, FileNotFoundError, 'no checkpoint at'),
        ('.', {}, FileNotFoundError, r'model_best\.pth\.tar or last\.pth\.tar'),
        ('hf-hub:user/name', {}, ValueError, 'must be a checkpoint on this machine'),
        ('widths/w0.5', {}, ValueError, 'must hold a whole slimmable model'),
        ('flat', {}, ValueError, 'must hold a whole slimmable model with a common embedding'),
        ('whole', {'matrix': 'none.json'}, FileNotFoundError, 'no matrix at'),
        ('whole', {'matrix': 'whole/config.json'}, ValueError, r'config.json. is no compat.*[^.]; .*eval'),
    ],
)
def test_sources_that_cannot_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: Any, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_whole(tiny(), tmp_path / 'whole')
    save_whole(tiny(embed_dim=0), tmp_path / 'flat')
    save_widths(tiny(), tmp_path / 'widths')
    with pytest.raises(error, match=message):
        read_source(source, **options)


@pytest.mark.parametrize('repo', ['name', 'a/b/c', 'user/na me', ''])
def test_repositories_that_are_none(run: Path, tmp_path: Path, repo: str) -> None:
    with pytest.raises(ValueError, match='repo must be user/name'):
        prepare(run, repo, tmp_path)
