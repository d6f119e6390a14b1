import random

import numpy as np
import pytest
import torch
from PIL import Image

from sfsc_timm.data import ImageReadError, Sample, SampleDataset, load_image
from sfsc_timm.data._images import Unreadable, seeded


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
    return path


def test_reads_files_and_arrays_as_rgb_or_grey(photo):
    assert load_image(photo).mode == 'RGB'
    assert load_image(photo).size == (30, 40)
    assert load_image(photo, 'L').mode == 'L'
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (np.asarray(load_image(grey)) == grey[..., None]).all()
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert (np.asarray(load_image(colour)) == colour).all()


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_pixels_become_white(tmp_path, mode):
    image = Image.new('RGBA', (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 10, 10, 255))
    image = image.quantize() if mode == 'P' else image.convert(mode)
    image.save(tmp_path / 'a.png')
    pixels = np.asarray(load_image(tmp_path / 'a.png'))
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 1] < 20).all()


def damaged(photo, how):
    if how == 'missing':
        photo.unlink()
    elif how == 'truncated':
        photo.write_bytes(photo.read_bytes()[:-200])
    elif how == 'empty':
        photo.write_bytes(b'')
    else:
        Image.open(photo).save(photo.with_suffix('.png'))
        photo = photo.with_suffix('.png')
        data = bytearray(photo.read_bytes())
        data[60:90] = b'x' * 30
        photo.write_bytes(data)
    return photo


@pytest.mark.parametrize('how', ['missing', 'truncated', 'empty', 'broken png'])
def test_unreadable_images_are_named(photo, how):
    path = damaged(photo, how)
    with pytest.raises(ImageReadError, match=path.name):
        load_image(path)


def to_tensor(image):
    return torch.tensor(np.asarray(image))


def test_dataset_raises_or_marks_unreadable_images(photo):
    samples = [Sample(photo, 5, 2), Sample(photo.with_name('absent.jpg'), 6, 3)]
    image, identity, camera, position = SampleDataset(samples, to_tensor)[0]
    assert (image.shape, identity, camera, position) == ((40, 30, 3), 5, 2, 0)
    with pytest.raises(ImageReadError, match='absent'):
        SampleDataset(samples, to_tensor)[1]
    marked = SampleDataset(samples, to_tensor, on_error='skip')[1]
    assert isinstance(marked, Unreadable)
    assert marked.position == 1
    assert 'absent' in marked.reason
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        SampleDataset(samples, to_tensor, on_error='ignore')


def test_seeded_fixes_all_generators_and_restores_them():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    def seed():
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    with seeded(2**61):
        inner = draw()
    assert draw() == expected
    with seeded(2**61):
        assert draw() == inner
