import numpy as np
import pytest
from PIL import Image

from sfsc_timm.data import (
    ImageReadError,
    Preprocessing,
    RetrievalData,
    Sample,
    TensorTransform,
    batches,
    make_transforms,
    preload,
)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(tmp_path / f'{i}.png')
        samples.append(Sample(tmp_path / f'{i}.png', i // 2, i % 2))
    return RetrievalData('toy', samples[:2], samples[2:], samples[2:], shared=True)


def test_arrays_replace_files(data):
    same = preload(data, (12, 10))
    for split in ('train', 'query', 'gallery'):
        for before, after in zip(getattr(data, split), getattr(same, split), strict=True):
            assert (np.asarray(Image.open(before.image)) == after.image).all()
            assert (before.identity, before.camera) == (after.identity, after.camera)
    assert same.query is same.gallery
    assert [s.identity for s in same.training] == [0, 0]


def test_any_size_is_served_from_memory(data):
    small = preload(data, (8, 6))
    train, test = make_transforms(small, Preprocessing((3, 8, 6), (0.5,) * 3, (0.5,) * 3))
    assert isinstance(train, TensorTransform)
    (batch,) = batches(small.query, test)
    assert batch.images.shape == (4, 3, 8, 6)


def test_an_unreadable_image_is_named(data):
    data.query[1].image.write_bytes(b'')
    with pytest.raises(ImageReadError, match=data.query[1].image.name):
        preload(data, (8, 8))
