import builtins
import hashlib
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from sfsc_timm.data import load_data
from sfsc_timm.data.glyphs import TYPEFACES, _coverage, _font_folder, _identities

FEW = {'train_identities': 30, 'test_identities': 40}


@pytest.fixture(scope='module')
def data():
    return load_data('glyphs', **FEW)


def digest(samples):
    text = ''.join(f'{s.identity},{s.camera};' for s in samples).encode()
    return hashlib.sha256(text + b''.join(s.image.tobytes() for s in samples)).hexdigest()


def test_follows_the_protocol(data):
    assert data.cameras
    assert not data.shared
    assert data.num_classes == 30
    test = {s.identity for s in data.gallery}
    assert len(test) == 40
    assert not test & set(data.classes)
    assert Counter(s.identity for s in data.query) == dict.fromkeys(test, 2)
    places = Counter((s.identity, s.camera) for s in data.gallery)
    assert set(places.values()) == {1}
    seen = defaultdict(set)
    for identity, camera in places:
        seen[identity].add(camera)
    assert all(len(cameras) >= 8 for cameras in seen.values())
    # Each query has the same character in its own typeface (which the protocol filters) and in others.
    assert all(s.camera in seen[s.identity] for s in data.query)


def test_images_are_square_grey_bytes_with_ink(data):
    for s in (*data.train, *data.query, *data.gallery):
        assert s.image.shape == (32, 32)
        assert s.image.dtype == np.uint8
        assert s.image.max() - s.image.min() > 60
    assert load_data('glyphs', size=48, **FEW).train[0].image.shape == (48, 48)


def test_queries_are_new_images(data):
    gallery = {(s.identity, s.camera): s.image for s in data.gallery}
    assert all((gallery[s.identity, s.camera] != s.image).any() for s in data.query)


def test_same_seed_same_bytes(data):
    again = load_data('glyphs', **FEW)
    other = load_data('glyphs', seed=1, **FEW)
    for split in ('train', 'query', 'gallery'):
        assert digest(getattr(data, split)) == digest(getattr(again, split))
    assert set(other.classes) != set(data.classes)


def test_limits_take_a_part_of_the_same_images(data):
    fewer = load_data('glyphs', train_identities=10, test_identities=20)
    images = {(s.identity, s.camera): s.image for s in (*data.train, *data.gallery)}
    for s in (*fewer.train, *fewer.gallery):
        assert (images[s.identity, s.camera] == s.image).all()
    assert set(fewer.classes) < set(data.classes)


def test_without_distortion_the_view_makes_no_difference():
    clean = load_data('glyphs', distortion=0, **FEW)
    gallery = {(s.identity, s.camera): s.image for s in clean.gallery}
    assert all((gallery[s.identity, s.camera] == s.image).all() for s in clean.query)
    assert all(s.image.max() == 255 for s in clean.query)


def test_characters_that_look_the_same_are_one():
    characters = set(_identities())
    assert 2000 < len(characters) < 3000
    for first, *copies in ('AΑА', 'BΒВ', 'oοо', 'HΗН', 'jϳј'):
        assert first in characters
        assert not characters & set(copies)
    assert set('QWRgabde?&€ßЖλ') <= characters
    assert not characters & {' ', '\u00a0', '\u0301', '\u2801', '\u200b'}


def test_typefaces_have_the_characters_they_are_cameras_of():
    from fontTools.ttLib import TTFont

    assert len(TYPEFACES) == len(set(TYPEFACES)) == 16
    with TTFont(_font_folder() / 'STIXGeneral.ttf') as font:
        known = set(font.getBestCmap())
    camera = TYPEFACES.index('STIXGeneral')
    with_stix = [ord(c) for c, cameras in _identities().items() if camera in cameras]
    assert len(with_stix) > 500
    assert set(with_stix) <= known
    assert 'ж' in _coverage('DejaVuSans')
    assert 'Ԃ' not in _coverage('STIXGeneral')


@pytest.mark.parametrize(
    'options,message',
    [
        ({'size': 8}, 'size must be at least 16, got 8'),
        ({'seed': -1}, 'seed must be at least 0'),
        ({'queries': 0}, 'queries must be at least 1'),
        ({'distortion': 3}, r'distortion must be in \[0, 2\], got 3'),
        ({'train_identities': 10**6}, r'train_identities must be in \[2, \d+\], got 1000000'),
        ({'test_identities': 1}, r'test_identities must be in \[2, '),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        load_data('glyphs', **options)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def no_matplotlib(name, *args, **kwargs):
        if name == 'matplotlib':
            raise ImportError(name)
        return real(name, *args, **kwargs)

    _font_folder.cache_clear()
    monkeypatch.delitem(sys.modules, 'matplotlib', raising=False)
    monkeypatch.setattr(builtins, '__import__', no_matplotlib)
    with pytest.raises(ImportError, match=r"pip install 'sfsc-timm\[plots\]'"):
        _font_folder()
