"""`sfsc-timm eval`: figures equal the library's, files, two checkpoints, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.checkpoints import DATA_CONFIG, paint, save_training, save_whole, tiny

from sfsc_timm.checkpoints import compatibility_id, save_widths
from sfsc_timm.cli.main import main
from sfsc_timm.data import Preprocessing, batches, load_data
from sfsc_timm.evaluation import GroundTruth, KReciprocal, embed, model_cost, retrieval_metrics

pytest.importorskip('rich')
pytest.importorskip('matplotlib')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp('saved')
    model = tiny()
    save_whole(model, root / 'whole')
    save_widths(model, root / 'widths', data_config=DATA_CONFIG)
    paint(root / 'photos', identities=8)
    return model, root


def evaluate(root, *arguments, checkpoint='whole'):
    command = ['eval', '--device', 'cpu', '--checkpoint', str(root / checkpoint), '--output', str(root / 'out')]
    status = main([*command, '--data', 'folder', '--data-dir', str(root / 'photos'), *arguments])
    return status, (json.loads((root / 'out/matrix.json').read_text()) if status == 0 else None)


def expected(model, data, crop_mode, flip=False):
    transform = Preprocessing((3, 32, 32), DATA_CONFIG['mean'], DATA_CONFIG['std'], crop_mode=crop_mode).transform()
    sides = [embed(model, batches(samples, transform), flip=flip) for samples in (data.query, data.gallery)]
    truth = GroundTruth.of(data)

    def cell(query, gallery, **options):
        return retrieval_metrics(sides[0][query], sides[1][gallery], truth, **options)

    return cell


def test_matrix_costs_and_files(saved, capsys):
    model, root = saved
    status, result = evaluate(root)
    assert status == 0
    cell = expected(model, load_data('folder', root / 'photos'), 'center')
    assert result['widths'] == [0.25, 0.5, 0.75, 1.0]
    for i, query in enumerate(model.widths):
        for j, gallery in enumerate(model.widths):
            metrics = cell(query, gallery)
            assert result['mAP'][i][j] == pytest.approx(metrics.mAP, abs=1e-3)
            assert result['rank1'][i][j] == pytest.approx(metrics.cmc[1], abs=1e-3)
            weaker = min(result['mAP'][i][i], result['mAP'][j][j])
            assert result['gain'][i][j] == pytest.approx(result['mAP'][i][j] - weaker)
            assert result['compatible'][i][j] == (i == j or result['mAP'][i][j] > weaker)
    assert [(p, f) for p, f in zip(result['params'], result['macs'], strict=True)] == [
        (cost.params, cost.macs) for cost in (model_cost(model.extract(w), (3, 32, 32)) for w in model.widths)
    ]
    assert all(t > 0 for t in result['latency_ms'])
    assert result['bytes_per_item'] == [64] * 4
    (source,) = result['checkpoints']
    assert source['compatibility'] == compatibility_id(model)
    assert source['mean'] == [0.5, 0.4, 0.3]
    assert {path.name for path in (root / 'out').iterdir()} == {'matrix.json', 'matrix.png', 'accuracy-cost.png'}
    printed = capsys.readouterr().out
    for text in (f'{result["mAP"][0][3]:.1f}/{result["rank1"][0][3]:.1f}', 'φ1/16', '64 B', 'weaker self-test'):
        assert text in printed


def test_cameras_flip_distance_and_reranking(saved):
    model, root = saved
    options = ['--data-kwargs', 'camera_pattern=_c(\\d)', 'train_share=0.25', '--flip', '--distance', 'euclidean']
    data = load_data('folder', root / 'photos', camera_pattern=r'_c(\d)', train_share=0.25)
    cell = expected(model, data, 'squash', flip=True)
    _, result = evaluate(root, *options, '--widths', '1', '0.25', '-b', '5')
    assert result['widths'] == [0.25, 1.0]
    assert result['mAP'][0][1] == pytest.approx(cell(0.25, 1.0, distance='euclidean').mAP, abs=1e-3)
    assert result['checkpoints'][0]['crop_mode'] == 'squash'
    for split in ('train', 'query', 'gallery'):
        paint(root / 'splits' / split, identities=6)
        for i in range(6):
            (root / f'splits/{split}/id{i}').rename(root / f'splits/{split}/{split == "train"}{i}')
    options = ['--data-dir', str(root / 'splits'), '--widths', '0.5']
    _, result = evaluate(root, *options, '--rerank')
    cell = expected(model, load_data('folder', root / 'splits'), 'center')
    assert result['mAP'][0][0] == pytest.approx(cell(0.5, 0.5, rerank=KReciprocal()).mAP, abs=1e-3)
    assert result['rerank'] == {'k1': 20, 'k2': 6, 'weight': 0.3}


def test_glyphs_come_from_memory(tmp_path, capsys):
    model = tiny(in_chans=1)
    config = {**DATA_CONFIG, 'input_size': (1, 32, 32), 'mean': (0.5,), 'std': (0.25,)}
    save_widths(model, tmp_path / 'widths', data_config=config)
    options = ['--data-kwargs', 'train_identities=2', 'test_identities=6', '--output', str(tmp_path / 'out')]
    assert main(['eval', '--checkpoint', str(tmp_path / 'widths'), '--data', 'glyphs', *options]) == 0
    assert 'glyphs' in capsys.readouterr().out


def test_two_widths_of_one_model_as_two_checkpoints(saved):
    _, root = saved
    _, whole = evaluate(root, '--widths', '0.25', '1')
    _, pair = evaluate(root, '--gallery-checkpoint', str(root / 'widths/w1'), checkpoint='widths/w0.25')
    assert pair['names'] == ['A φ1/16', 'B φ']
    np.testing.assert_allclose(pair['mAP'], whole['mAP'], atol=1e-3)
    np.testing.assert_allclose(pair['gain'], whole['gain'], atol=1e-3)
    assert len({source['compatibility'] for source in pair['checkpoints']}) == 1


def test_two_models_with_the_same_widths(saved, tmp_path, capsys):
    _, root = saved
    other = save_training(tiny(1), tmp_path / 'other.pth.tar')
    choice = ['--widths', '1', '--gallery-checkpoint', str(other), '--gallery-widths', '1', '0.5']
    _, result = evaluate(root, *choice)
    assert result['names'] == ['B φ1/4', 'A φ', 'B φ']
    assert result['widths'] == [0.5, 1.0, 1.0]
    assert np.shape(result['mAP']) == (3, 3)
    assert 'different metric spaces' in capsys.readouterr().out


def test_unreadable_images_stop_or_are_left_out(saved, tmp_path, capsys):
    model, root = saved
    files = paint(tmp_path / 'photos', identities=8)
    for file in files[::8]:
        file.write_bytes(file.read_bytes()[:60])
    options = ['--data-dir', str(tmp_path / 'photos'), '--widths', '1']
    assert evaluate(root, *options)[0] == 1
    assert 'Cannot read the image' in capsys.readouterr().err
    _, result = evaluate(root, *options, '--on-error', 'skip')
    for file in files[::8]:
        file.unlink()
    cell = expected(model, load_data('folder', tmp_path / 'photos'), 'center')
    assert result['mAP'][0][0] == pytest.approx(cell(1.0, 1.0).mAP, abs=1e-3)


@pytest.mark.parametrize('arguments, message', [
    (['--widths', '0.3'], 'has the widths'),
    (['--gallery-widths', '1'], 'needs --gallery-checkpoint'),
    (['--data', 'nonesuch'], 'must be one of'),
    (['--data', 'market1501'], 'bounding_box_train'),
    (['--data-kwargs', 'a=1'], "no option 'a'"),
    (['--data-kwargs', 'train_share=x'], 'must be a float'),
    (['--rerank'], '--rerank needs a gallery'),
    (['--device', 'nonesuch'], "device 'nonesuch' cannot be used"),
    (['--checkpoint', 'none.pth.tar'], 'no such file'),
    (['--input-size', '1', '32', '32'], 'channels'),
    (['-b', '0'], 'batch_size'),
])  # fmt: skip
def test_errors_are_one_message(saved, capsys, arguments, message):
    _, root = saved
    assert evaluate(root, *arguments)[0] == 1
    error = capsys.readouterr().err
    assert error.startswith('sfsc-timm: ')
    assert message in error
    assert 'Traceback' not in error


def test_embeddings_of_different_sizes(saved, tmp_path, capsys):
    _, root = saved
    save_whole(tiny(embed_dim=8), tmp_path / 'other')
    assert evaluate(root, '--gallery-checkpoint', str(tmp_path / 'other'))[0] == 1
    assert 'different sizes' in capsys.readouterr().err


def test_nan_weights_are_refused(tmp_path, capsys):
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(float('nan'))
    path = save_training(model, tmp_path / 'last.pth.tar')
    assert main(['eval', '--checkpoint', str(path), '--data', 'glyphs']) == 1
    assert 'not finite' in capsys.readouterr().err
