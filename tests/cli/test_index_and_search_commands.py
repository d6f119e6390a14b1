"""`sfsc-timm index` and `sfsc-timm search`: resuming, refusing, ranking, JSON."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.checkpoints import DATA_CONFIG, paint, save_whole, tiny

from sfsc_timm._files import write_json
from sfsc_timm.checkpoints import compatibility_id, save_widths, space_id, weights_digest
from sfsc_timm.cli import _parts, index
from sfsc_timm.cli.main import main
from sfsc_timm.data import DECODING, Preprocessing, Sample, batches
from sfsc_timm.evaluation import embed
from sfsc_timm.retrieval import Gallery
from sfsc_timm.retrieval import search as search_exactly

pytest.importorskip('rich')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp('saved')
    model = tiny()
    save_whole(model, root / 'whole')
    save_widths(model, root / 'widths', data_config=DATA_CONFIG)
    save_widths(tiny(1), root / 'others', data_config=DATA_CONFIG)
    files = paint(root / 'photos')
    return model, root, files


def build(root, output, *arguments, checkpoint='widths/w1'):
    return main([
        'index', str(root / 'photos'), '--checkpoint', str(root / checkpoint), '--output', str(output),
        '--device', 'cpu', *arguments,
    ])  # fmt: skip


@pytest.fixture
def gallery(saved, tmp_path):
    assert build(saved[1], tmp_path / 'gallery') == 0
    return tmp_path / 'gallery'


def query(gallery, root, *arguments, checkpoint='widths/w0.25'):
    return main(
        ['search', str(gallery), '--checkpoint', str(root / checkpoint), '--device', 'cpu', *map(str, arguments)]
    )


def embeddings(model, files, width, crop_mode='center'):
    transform = Preprocessing((3, 32, 32), DATA_CONFIG['mean'], DATA_CONFIG['std'], crop_mode=crop_mode).transform()
    return embed(model, batches([Sample(file, 0) for file in files], transform), [width])[width]


def test_gallery_holds_the_embeddings(saved, tmp_path, capsys):
    model, root, files = saved
    assert build(root, tmp_path / 'g') == 0
    made = Gallery(tmp_path / 'g')
    assert made.paths == tuple(str(file.resolve()) for file in files)
    torch.testing.assert_close(made.embeddings(), embeddings(model, files, 1.0), rtol=1e-4, atol=1e-5)
    assert (made.info.width, made.info.embed_dim) == (1.0, 16)
    assert made.info.compatibility_id == compatibility_id(model)
    assert made.info.space_id == space_id(model)
    assert made.info.weights_digest == weights_digest(model, 1.0)
    assert '12 items at width 1, 16 numbers each' in capsys.readouterr().out


def test_whole_models_index_at_any_width(saved, tmp_path):
    model, root, files = saved
    assert build(root, tmp_path / 'g', '--width', '0.5', '--dtype', 'float16', checkpoint='whole') == 0
    stored = Gallery(tmp_path / 'g').embeddings()
    assert stored.dtype == torch.float16
    torch.testing.assert_close(stored.float(), embeddings(model, files, 0.5), rtol=1e-3, atol=1e-3)
    assert query(tmp_path / 'g', root, files[0]) == 0


def test_interrupted_index_goes_on(saved, tmp_path, monkeypatch, capsys):
    model, root, files = saved
    original, embedded = _parts.embed, []

    def interrupted(model, images, *args, **kwargs):
        if len(embedded) == 2:
            raise KeyboardInterrupt
        result = original(model, images, *args, **kwargs)
        embedded.append(result)
        return result

    small = ['-b', '2', '--shard-size', '3']  # shards of two batches: 4 images
    with monkeypatch.context() as patch:
        patch.setattr(_parts, 'embed', interrupted)
        assert build(root, tmp_path / 'g', *small) == 130
    assert len(Gallery(tmp_path / 'g')) == 8
    assert capsys.readouterr().err == 'sfsc-timm: stopped\n'
    assert build(root, tmp_path / 'g', *small) == 0
    assert '12 images, 8 of them in the gallery already' in capsys.readouterr().out
    made = Gallery(tmp_path / 'g')
    assert made.paths == tuple(str(file.resolve()) for file in files)
    torch.testing.assert_close(made.embeddings(), embeddings(model, files, 1.0), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(_parts, 'serve', None)  # nothing is left to read
    assert build(root, tmp_path / 'g') == 0


def test_gallery_of_a_data_set(saved, tmp_path):
    model, root, files = saved
    lines = [
        f'{file},{file.parent.name},{file.stem[-1]},{split}'
        for file, split in zip(files, ['query', 'gallery'] * 6, strict=True)
    ]
    (tmp_path / 'm.csv').write_text('path,identity,camera,split\n' + '\n'.join(lines) + '\n')
    command = ['index', '--checkpoint', str(root / 'whole'), '--output', str(tmp_path / 'g'), '--device', 'cpu']
    assert main([*command, '--data', 'manifest', '--data-dir', str(tmp_path / 'm.csv')]) == 0
    made = Gallery(tmp_path / 'g')
    assert made.paths == tuple(str(file.resolve()) for file in files[1::2])
    note = json.loads((tmp_path / 'g/preprocessing.json').read_text())
    assert note['crop_mode'] == 'squash'  # it has cameras
    torch.testing.assert_close(made.embeddings(), embeddings(model, files[1::2], 1.0, 'squash'), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_search_ranks_across_widths(saved, gallery, capsys, distance):
    model, root, files = saved
    capsys.readouterr()
    assert query(gallery, root, files[0], files[5], '-k', 3, '--json', '--distance', distance) == 0
    result = json.loads(capsys.readouterr().out)
    scores, items = search_exactly(
        embeddings(model, [files[0], files[5]], 0.25), embeddings(model, files, 1.0), 3, distance=distance
    )
    assert (result['query_width'], result['gallery_width'], result['items']) == (0.25, 1.0, 12)
    assert [r['query'] for r in result['results']] == [str(files[0]), str(files[5])]
    for row, found in enumerate(result['results']):
        assert [m['path'] for m in found['matches']] == [str(files[i].resolve()) for i in items[row].tolist()]
        assert [m['score'] for m in found['matches']] == pytest.approx(scores[row].tolist(), abs=1e-3)


def test_search_prints_and_draws(saved, gallery, tmp_path, capsys):
    pytest.importorskip('matplotlib')
    _, root, files = saved
    sheet = tmp_path / 'sheet.png'
    assert query(gallery, root, root / 'photos/id0', '-k', 99, '--contact-sheet', sheet, checkpoint='whole') == 0
    printed = capsys.readouterr().out
    for file in files:
        assert printed.count(f'  {file.resolve()}\n') == 4  # every item is a match of each of four queries
    assert sheet.read_bytes().startswith(b'\x89PNG')


def test_search_through_faiss(saved, gallery, capsys):
    pytest.importorskip('faiss')
    _, root, files = saved
    results = []
    for extra in ([], ['--faiss'], ['--faiss']):
        capsys.readouterr()
        assert query(gallery, root, files[3], '-k', 2, '--json', *extra) == 0
        results.append(json.loads(capsys.readouterr().out)['results'][0]['matches'])
    exact, *approximate = ([match['path'] for match in matches] for matches in results)
    assert approximate == [exact, exact]  # so few items make one list
    assert [file.name for file in gallery.glob('*.faiss')] == ['cosine-12.faiss']


def test_other_metric_spaces_are_refused_unless_forced(saved, gallery, capsys):
    _, root, files = saved
    assert query(gallery, root, files[0], checkpoint='others/w0.25') == 1
    error = capsys.readouterr().err
    assert 'Distances between different metric spaces mean nothing' in error
    assert error.count('\n') == 1
    assert query(gallery, root, files[0], '--force', checkpoint='others/w0.25') == 0
    assert build(root, gallery, checkpoint='others/w1') == 1
    assert 'already holds a gallery' in capsys.readouterr().err


@pytest.mark.parametrize('arguments, message', [
    (['--mean', '0.1'], 'mean='),
    (['--flip'], 'flip=False (now True)'),
    (['--width', '0.5'], '--width must be one of'),
])  # fmt: skip
def test_index_refuses_to_mix(saved, gallery, capsys, arguments, message):
    assert build(saved[1], gallery, *arguments) == 1
    assert message in capsys.readouterr().err
    assert len(Gallery(gallery)) == 12


OTHERWISE = ['--img-size', '48', '--mean', '0.1', '--std', '0.5', '--interpolation', 'bilinear', '--crop-pct', '0.8',
             '--crop-mode', 'squash', '--flip']  # fmt: skip
PREPARED = Preprocessing((3, 48, 48), (0.1,) * 3, (0.5,) * 3, 'bilinear', 0.8, 'squash')


def scores_of(capsys):
    found = json.loads(capsys.readouterr().out)['results'][0]['matches']
    return {match['path']: match['score'] for match in found}


def expected_scores(model, file, files, asked, known=PREPARED, *, flip=True):
    """Scores by path of a query prepared as asked, in a gallery prepared as `known`."""
    query, items = (
        embed(model, batches([Sample(f, 0) for f in photos], how.transform()), [width], flip=mirrored)[width]
        for photos, how, width, mirrored in (([file], asked, 0.25, flip), (files, known, 1.0, known is PREPARED))
    )
    scores = torch.nn.functional.cosine_similarity(query, items)
    return {str(f.resolve()): pytest.approx(float(score), abs=1e-3) for f, score in zip(files, scores, strict=True)}


def test_queries_are_prepared_as_the_gallery_was(saved, tmp_path, capsys):
    model, root, files = saved
    assert build(root, tmp_path / 'g', *OTHERWISE) == 0
    same = expected_scores(model, files[0], files, PREPARED)
    for flags in ([], OTHERWISE, ['--mean', '0.1', '0.1', '0.1'], ['--img-size', '48']):
        capsys.readouterr()
        assert query(tmp_path / 'g', root, files[0], '-k', 12, '--json', *flags) == 0
        assert scores_of(capsys) == same


@pytest.mark.parametrize('flags, changes, message', [
    (['--img-size', '64'], {'img_size': 64}, 'input_size=[3, 32, 32] (asked for [3, 64, 64])'),
    (['--input-size', '3', '32', '48'], {'input_size': (3, 32, 48)}, '(asked for [3, 32, 48])'),
    (['--mean', '0.9'], {'mean': (0.9,)}, 'mean=[0.5, 0.4, 0.3] (asked for [0.9, 0.9, 0.9])'),
    (['--std', '1'], {'std': (1.0,)}, 'std=[0.25, 0.25, 0.25] (asked for [1.0, 1.0, 1.0])'),
    (['--interpolation', 'nearest'], {'interpolation': 'nearest'}, 'interpolation=bicubic (asked for nearest)'),
    (['--crop-pct', '0.5'], {'crop_pct': 0.5}, 'crop_pct=1.0 (asked for 0.5)'),
    (['--crop-mode', 'squash'], {'crop_mode': 'squash'}, 'crop_mode=center (asked for squash)'),
    (['--flip'], {}, 'flip=False (asked for True)'),
])  # fmt: skip
def test_queries_prepared_otherwise_are_refused_unless_forced(saved, gallery, capsys, flags, changes, message):
    model, root, files = saved
    capsys.readouterr()
    assert query(gallery, root, files[0], *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert '--force' in error
    assert query(gallery, root, files[0], '-k', 12, '--json', '--force', *flags) == 0
    known = Preprocessing((3, 32, 32), DATA_CONFIG['mean'], DATA_CONFIG['std'])
    asked = known.changed(**changes)
    assert scores_of(capsys) == expected_scores(model, files[0], files, asked, known, flip='--flip' in flags)


def test_notes_of_the_preparation(saved, gallery, capsys):
    _, root, files = saved
    note = gallery / 'preprocessing.json'
    known = json.loads(note.read_text())
    assert (known['decoding'], known['flip'], known['input_size']) == (DECODING, False, [3, 32, 32])
    write_json(note, {**known, 'flip': True})  # another way, which nothing else would tell
    assert query(gallery, root, files[0]) == 1
    assert 'it is not what was written, by its sha256' in capsys.readouterr().err
    del known['sha256']  # as earlier versions noted it
    write_json(note, {name: value for name, value in known.items() if name != 'decoding'})
    for status, forced in ((1, []), (0, ['--force'])):  # decoded as before there were versions
        assert query(gallery, root, files[0], *forced) == status
    assert 'were decoded by rules of version 1' in capsys.readouterr().err
    assert build(root, gallery) == 1
    assert f'decoding=1 (now {DECODING})' in capsys.readouterr().err
    for wrong in ('no JSON', '[]', '{}', json.dumps({**known, 'mean': [127] * 3}), json.dumps({**known, 'flip': 'no'})):
        note.write_text(wrong)
        for run in (lambda: query(gallery, root, files[0], '--force'), lambda: build(root, gallery)):
            assert run() == 1
            error = capsys.readouterr().err
            assert f'{str(note)!r} does not say how the images of the gallery were prepared' in error
            assert error.count('\n') == 1
    note.unlink()
    assert query(gallery, root, files[0]) == 0  # made by other means: as the checkpoint says
    assert build(root, gallery) == 1
    assert 'no preprocessing.json that says how they were prepared' in capsys.readouterr().err


@pytest.mark.parametrize('flags, message', [
    (['--std', '-1'], 'std must be in [0.001, 1], got -1.0'),
    (['--mean', '127'], 'mean must be in [0, 1], got 127.0'),
    (['--mean', '0.5', '0.5'], 'mean must have a value for each of the 3 channels'),
    (['--crop-pct', '0'], 'crop_pct must be in [0.1, 2], got 0.0'),
    (['--batch-size', '0'], 'batch_size must be at least 1, got 0'),
    (['--img-size', '0'], 'input_size must be channels, height and width'),
    (['--img-size', '100000'], 'input_size must be channels, height and width'),
    (['--input-size', '1', '32', '32'], 'Requested 1 input channels, but the model accepts 3'),
])  # fmt: skip
def test_preprocessing_out_of_range_is_refused(saved, tmp_path, capsys, flags, message):
    assert build(saved[1], tmp_path / 'g', *flags) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'g').exists()


@pytest.mark.parametrize('flags, message', [
    (['--crop-mode', 'nonsense'], "invalid choice: 'nonsense'"),
    (['--interpolation', 'nonsense'], "invalid choice: 'nonsense'"),
    (['--shard-size', '-7'], "--shard-size: must be a whole number >= 1, got '-7'"),
    (['--workers', '100000'], "--workers: must be a whole number in [0, 1024], got '100000'"),
    (['--workers', '1.5'], "--workers: must be a whole number in [0, 1024], got '1.5'"),
])  # fmt: skip
def test_what_no_flag_may_be_is_wrong_usage(saved, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match='2'):
        build(saved[1], tmp_path / 'g', *flags)
    assert message in capsys.readouterr().err


def test_unreadable_images(saved, tmp_path, capsys):
    _, root, files = saved
    folder = tmp_path / 'photos'
    bad = paint(folder, identities=1)[1]
    bad.write_bytes(b'no image')
    command = [
        'index',
        str(folder),
        '--checkpoint',
        str(root / 'whole'),
        '--output',
        str(tmp_path / 'g'),
        '--device',
        'cpu',
    ]
    assert main(command) == 1
    assert str(bad) in capsys.readouterr().err
    assert main([*command, '--on-error', 'skip']) == 0
    assert '3 items at width 1, 16 numbers each; 1 unreadable images skipped' in capsys.readouterr().out
    assert query(tmp_path / 'g', root, bad) == 1
    assert str(bad) in capsys.readouterr().err
    assert query(tmp_path / 'g', root, bad, files[0], '--on-error', 'skip', '--json', '-k', 1) == 0
    assert [found['query'] for found in json.loads(capsys.readouterr().out)['results']] == [str(files[0])]
    assert query(tmp_path / 'g', root, bad, '--on-error', 'skip') == 1
    assert 'none of the query images could be read' in capsys.readouterr().err
    assert query(tmp_path / 'g', root, files[0]) == 0


def test_names_are_printed_as_they_are(saved, tmp_path, capsys):
    """Brackets are no markup, and colons no emoji."""
    _, root, files = saved
    gallery = tmp_path / 'g[/red]:cat:[0]'
    photo = tmp_path / '[bold]photo[dim].png'
    photo.write_bytes(files[0].read_bytes())
    assert build(root, gallery) == 0
    assert query(gallery, root, photo) == 0
    printed = capsys.readouterr().out
    assert f'\n{gallery}: 12 items at width 1' in printed
    assert f'\n{photo}\n' in printed


@pytest.mark.parametrize('arguments, message', [
    (['index'], 'either a FOLDER'),
    (['index', 'a', '--data', 'folder'], 'either a FOLDER'),
    (['index', 'nowhere'], 'Not found: nowhere'),
    (['index', 'a', '--data-kwargs', 'size=3'], '--data-dir and --data-kwargs are of a data set, got no --data'),
    (['index', '--data', 'glyphs', '--data-kwargs', 'train_identities=2', 'test_identities=2'], 'run time'),
    (['search', 'nowhere', 'a.png'], 'no gallery in'),
    (['search', 'empty', 'a.png'], 'is empty'),
    (['search', 'full', 'nowhere.png'], "no image at 'nowhere.png'"),
    (['search', 'full', 'full'], 'No images in'),
    (['search', 'full', 'photo.png', '-k', '0'], '-k must be at least 1'),
    (['search', 'full', 'photo.png', '--width', '0.3'], '--width must be one of'),
])  # fmt: skip
def test_errors(saved, tmp_path, monkeypatch, capsys, arguments, message):
    _, root, files = saved
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photo.png').write_bytes(files[0].read_bytes())
    if arguments[0] == 'search':
        info = index.GalleryInfo('m', 1.0, 16, compatibility_id(saved[0]))
        Gallery.create('empty', info)
        Gallery.create('full', info).append(['a'], torch.ones(1, 16))
    assert main([*arguments, '--checkpoint', str(root / 'whole'), '--device', 'cpu']) == 1
    error = capsys.readouterr().err
    assert error.startswith('sfsc-timm: ')
    assert message in error


def test_files_are_written_whole(tmp_path, monkeypatch):
    write_json(tmp_path / 'a.json', {'a': 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'a': object()})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'a': 1}
