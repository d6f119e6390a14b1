import base64
import csv
import hashlib
import io
import json
import stat
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sfsc_timm.data import build_emoji, load_data
from sfsc_timm.data.emoji import build as _emoji_build
from sfsc_timm.data.emoji.designs import DESIGNS, Design, normalise, read_designs

COLOURS = {'noto': 'red', 'twemoji': 'green', 'openmoji': 'blue', 'emojione': 'currentColor'}
CODES = {f'1f6{i:02x}': f'icon-{i}' for i in range(12)}


def archive(path, files):
    with tarfile.open(path, 'w:gz') as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f'package/{name}')
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return 'sha512-' + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def circle(colour, radius):
    return f'<circle cx="16" cy="16" r="{radius}" fill="{colour}"/>'


def iconify(colour, codes, listed=True):
    icons = {name: {'body': circle(colour, 3 + i)} for i, name in enumerate(codes.values())}
    files = {'icons.json': {'icons': icons, 'width': 32, 'height': 32}, 'chars.json': codes if listed else {}}
    return {name: json.dumps(content).encode() for name, content in files.items()}


def webp(colour):
    file = io.BytesIO()
    image = Image.new('RGBA', (40, 40), (0, 0, 0, 0))
    image.paste(colour, (10, 10, 30, 30))
    image.save(file, 'WEBP', lossless=True)
    return file.getvalue()


def files_of(name):
    if name == '3d':
        return {f'assets/0{code}-fe0f.webp': webp((10 * i, 0, 0, 255)) for i, code in enumerate(CODES)}
    return iconify(COLOURS[name], CODES, listed=name != 'emojione')


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm that serves small packages from a folder, keeps a log and fails where told."""
    store, tools = tmp_path / 'store', tmp_path / 'tools'
    store.mkdir()
    tools.mkdir()
    designs = [
        Design(n, f'@sets/{n}', '1.0.0', archive(store / f'{n}.tgz', files_of(n)), 'Someone', 'MIT', 'https://x.org')
        for n in (*COLOURS, '3d')
    ]
    script = tools / 'npm'
    script.write_text(
        f'#!{sys.executable}\n'
        'import pathlib, shutil, sys\n'
        f'store = pathlib.Path({str(store)!r})\n'
        'name = sys.argv[2].split("/")[1].split("@")[0]\n'
        'assert sys.argv[1:] == ["pack", f"@sets/{name}@1.0.0", "--ignore-scripts", "--silent"]\n'
        'with (store / "log").open("a") as log: log.write(name + "\\n")\n'
        'if (store / "down").exists(): sys.exit("npm error network unreachable")\n'
        'shutil.copy(store / f"{name}.tgz", f"sets-{name}-1.0.0.tgz")\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', str(tools))
    monkeypatch.setattr(_emoji_build, 'DESIGNS', tuple(designs))
    return store


def contents(root):
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob('*') if f.is_file()}


def test_builds_a_benchmark_that_loads(npm, tmp_path):
    pytest.importorskip('resvg_py')
    seen = []
    manifest = build_emoji(tmp_path / 'emoji', size=32, progress=lambda *step: seen.append(step))
    assert manifest == tmp_path / 'emoji' / 'manifest.csv'
    assert seen == [(name, i, 12) for name in (*COLOURS, '3d') for i in range(1, 13)]
    with manifest.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 60
    assert Counter(row['camera'] for row in rows) == dict.fromkeys((*COLOURS, '3d'), 12)
    assert {row['identity'] for row in rows} == set(CODES)
    assert not (tmp_path / 'emoji' / '.packages').exists()
    licences = (tmp_path / 'emoji' / 'LICENSES.md').read_text()
    assert all(f'| {name} | Someone | MIT |' in licences for name in COLOURS)

    data = load_data('emoji', tmp_path / 'emoji')
    assert data.cameras
    assert data.shared
    assert data.num_classes == 6
    assert len(data.train) == len(data.query) == 30
    again = load_data('emoji', tmp_path / 'emoji', validation=True)
    assert {s.image for s in (*again.train, *again.query)} == {s.image for s in data.train}
    assert len(again.query) == 5  # 20 % of six identities, rounded, in five designs
    assert not set(again.classes) & {s.identity for s in again.query}
    final = load_data('emoji', tmp_path / 'emoji', everything=True)
    assert final.num_classes == len(CODES)
    assert {s.image for s in final.train} == {s.image for s in (*data.train, *data.query)}
    assert [s.image for s in final.query] == [s.image for s in data.query]
    assert final.name == 'emoji (trained on)'  # no figure of it passes for one of new identities
    with pytest.raises(ValueError, match='validation must be False where everything is trained on'):
        load_data('emoji', tmp_path / 'emoji', everything=True, validation=True)


def test_images_are_drawn_on_white_at_the_size(npm, tmp_path):
    pytest.importorskip('resvg_py')
    root = build_emoji(tmp_path / 'emoji', size=32).parent
    for name, colour in (('noto', (255, 0, 0)), ('twemoji', (0, 128, 0)), ('emojione', (0, 0, 0))):
        pixels = np.asarray(Image.open(root / name / '1f605.png'))
        assert pixels.shape == (32, 32, 3)
        assert tuple(pixels[16, 16]) == colour
        assert tuple(pixels[0, 0]) == (255, 255, 255)
        assert abs((pixels != 255).any(-1).sum() - np.pi * 8**2) < 30  # radius 3 + 5
    pixels = np.asarray(Image.open(root / '3d' / '1f605.png'))
    assert pixels.shape == (32, 32, 3)
    assert tuple(pixels[16, 16]) == (50, 0, 0)
    assert tuple(pixels[2, 2]) == (255, 255, 255)


def test_same_files_again_also_after_interruptions(npm, tmp_path, monkeypatch):
    pytest.importorskip('resvg_py')
    expected = contents(build_emoji(tmp_path / 'one', size=16).parent)
    assert len((npm / 'log').read_text().split()) == 5

    root = tmp_path / 'two'
    real = _emoji_build._render_design

    def interrupted(folder, pictures, size, render, progress):
        if folder.name == 'openmoji':
            (folder.with_name('.openmoji.part')).mkdir()
            (folder.with_name('.openmoji.part') / 'half.png').touch()
            raise KeyboardInterrupt
        real(folder, pictures, size, render, progress)

    monkeypatch.setattr(_emoji_build, '_render_design', interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_emoji(root, size=16)
    assert not (root / 'openmoji').exists()
    with pytest.raises(FileNotFoundError, match='build_emoji'):
        load_data('emoji', root)
    before = (root / 'noto' / '1f600.png').stat().st_mtime_ns
    monkeypatch.setattr(_emoji_build, '_render_design', real)
    build_emoji(root, size=16)
    assert contents(root) == expected
    assert (root / 'noto' / '1f600.png').stat().st_mtime_ns == before  # complete designs are not drawn again
    assert len((npm / 'log').read_text().split()) == 10  # nor packages fetched again
    build_emoji(root, size=16)
    assert len((npm / 'log').read_text().split()) == 10


def test_an_interrupted_download_goes_on(npm, tmp_path):
    pytest.importorskip('resvg_py')
    hidden = (npm / 'openmoji.tgz').rename(npm / 'hidden')
    with pytest.raises(RuntimeError, match=r'`npm pack @sets/openmoji@1\.0\.0` failed'):
        build_emoji(tmp_path / 'emoji')
    hidden.rename(npm / 'openmoji.tgz')
    build_emoji(tmp_path / 'emoji')
    assert Counter((npm / 'log').read_text().split()) == {**dict.fromkeys((*COLOURS, '3d'), 1), 'openmoji': 2}


def test_npm_troubles_are_explained(npm, tmp_path, monkeypatch):
    pytest.importorskip('resvg_py')
    (npm / 'down').touch()
    with pytest.raises(RuntimeError, match='failed: npm error network unreachable'):
        build_emoji(tmp_path / 'emoji')
    (npm / 'down').unlink()
    archive(npm / 'noto.tgz', {'icons.json': b'{}'})
    with pytest.raises(RuntimeError, match=r'@sets/noto@1\.0\.0 is not the pinned package: expected sha512-'):
        build_emoji(tmp_path / 'emoji')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'npm was not found.* Install Node\.js'):
        build_emoji(tmp_path / 'emoji')
    assert not (tmp_path / 'emoji' / 'manifest.csv').exists()


def test_without_resvg_the_extra_is_named(npm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'resvg_py', None)
    with pytest.raises(ImportError, match=r"pip install 'sfsc-timm\[emoji\]'"):
        build_emoji(tmp_path / 'emoji')


def test_other_folders_are_left_alone(npm, tmp_path):
    pytest.importorskip('resvg_py')
    root = tmp_path / 'emoji'
    build_emoji(root, size=16)
    with pytest.raises(ValueError, match='built with another size or other packages'):
        build_emoji(root, size=32)
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'mine.jpg').touch()
    with pytest.raises(ValueError, match='root must be a new or empty folder'):
        build_emoji(tmp_path / 'photos')
    with pytest.raises(ValueError, match='size must be at least 16, got 8'):
        build_emoji(tmp_path / 'new', size=8)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    'written,normal',
    [
        ('1f600', '1f600'),
        ('1F600', '1f600'),
        ('00a9-fe0f', 'a9'),
        ('0023-fe0f-20e3', '23-20e3'),
        ('2764-fe0f-200d-1f525', '2764-200d-1f525'),
        ('1f3f3-fe0f-200d-1f308', '1f3f3-200d-1f308'),  # rainbow flag
        ('1f44b-1f3fb', None),  # skin tone
        ('1f1f3-1f1f4', None),  # Norway
        ('1f3f4-e0067-e0062-e0065-e006e-e0067-e007f', None),  # England
        ('e001', None),
    ],
)
def test_sequences_have_one_spelling(written, normal):
    assert normalise(written) == normal


def test_a_picture_has_one_identity_and_mirrored_names_are_not_guessed(tmp_path):
    body = circle('red', 9)
    icons = {'icons': {'family': {'body': body}, 'parents': {'body': body}, 'left': {'body': circle('red', 5)}}}
    icons['aliases'] = {'right': {'parent': 'left', 'hFlip': True}}
    codes = {'1f46a': 'family', '1f468-200d-1f466': 'parents', '1f448': 'left', '1f449': 'right'}
    archive(
        tmp_path / 'a.tgz',
        {'icons.json': json.dumps(icons).encode(), 'chars.json': json.dumps(codes).encode()},
    )
    pictures = read_designs({'a': tmp_path / 'a.tgz'})['a']
    assert set(pictures) == {'1f46a', '1f448'}


def test_pinned_designs_are_enough_and_openly_licensed():
    assert len({design.name for design in DESIGNS}) == len(DESIGNS) >= 5
    for design in DESIGNS:
        assert len(base64.b64decode(design.integrity.removeprefix('sha512-'))) == 64
        assert design.licence in {'Apache-2.0', 'CC-BY-4.0', 'CC-BY-SA-4.0', 'MIT'}
