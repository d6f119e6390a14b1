import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from sfsc_timm.data import (
    ImageReadError,
    PKSampler,
    Preprocessing,
    RetrievalData,
    Sample,
    ShuffleSampler,
    TensorTransform,
    batches,
    make_transforms,
    train_transform,
)

SIZE = (3, 16, 16)
HALF = (0.5,) * 3
PREPROCESSING = Preprocessing(SIZE, HALF, HALF)


@pytest.fixture(scope='module')
def arrays():
    rng = np.random.default_rng(0)
    return [Sample(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), i // 2, i % 2) for i in range(11)]


@pytest.fixture
def files(arrays, tmp_path):
    samples = []
    for i, sample in enumerate(arrays):
        Image.fromarray(sample.image).save(tmp_path / f'{i}.png')
        samples.append(Sample(tmp_path / f'{i}.png', sample.identity, sample.camera))
    return samples


def joined(served):
    return [torch.cat(parts) for parts in zip(*served, strict=True)]


def test_memory_and_loader_serve_the_same_in_order(arrays, files):
    memory = batches(arrays, TensorTransform(HALF, HALF), batch_size=4)
    loader = batches(files, PREPROCESSING.transform(), batch_size=4)
    assert len(memory) == len(loader) == 3
    for from_memory, from_files in zip(joined(memory), joined(loader), strict=True):
        torch.testing.assert_close(from_memory, from_files)
    images, identities, cameras, indices = joined(memory)
    assert images.shape == (11, *SIZE)
    assert identities.tolist() == [s.identity for s in arrays]
    assert cameras.tolist() == [s.camera for s in arrays]
    assert indices.tolist() == list(range(11))


@pytest.mark.parametrize('source', ['memory', 'loader'])
def test_an_epoch_depends_on_seed_and_epoch_alone(arrays, files, source):
    def epoch(number, seed=3):
        sampler = ShuffleSampler(11, 4, seed=1, drop_last=False)
        sampler.set_epoch(number)
        if source == 'memory':
            return joined(batches(arrays, TensorTransform(HALF, HALF, shift=0.2), sampler=sampler, seed=seed))
        transform = train_transform(PREPROCESSING, color_jitter=0.4, auto_augment='rand-m9-mstd0.5', erase=0.5)
        return joined(batches(files, transform, sampler=sampler, seed=seed))

    torch.manual_seed(0)
    images, *_, indices = epoch(2)
    torch.manual_seed(1)
    again, *_, same = epoch(2)
    assert torch.equal(indices, same)
    assert torch.equal(images, again)
    other, *_, order = epoch(3)
    assert not torch.equal(indices, order)
    assert not torch.equal(images[indices.argsort()], other[order.argsort()])
    reseeded, *_, same = epoch(2, seed=4)
    assert torch.equal(indices, same)
    assert not torch.equal(images, reseeded)


def test_batches_do_not_depend_on_workers_nor_touch_global_generators(files):
    transform = train_transform(PREPROCESSING, color_jitter=0.4, erase=0.5)
    state = torch.get_rng_state()
    served = {}
    for workers in (0, 2):
        sampler = PKSampler([s.identity for s in files], 3, 2)
        loader = batches(files, transform, sampler=sampler, workers=workers)
        served[workers] = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            served[workers] += joined(loader)
    assert torch.equal(torch.get_rng_state(), state)
    for alone, shared in zip(served[0], served[2], strict=True):
        assert torch.equal(alone, shared)


def test_the_loader_is_in_no_reference_cycle(files):
    # Workers collected as part of a cycle are never told to stop, and each is waited for during five seconds.
    served = batches(files, PREPROCESSING.transform(), batch_size=4, workers=1)
    list(served)
    loader = weakref.ref(served._loader)
    gc.disable()
    try:
        del served
        assert loader() is None
    finally:
        gc.enable()


def test_unreadable_images_stop_or_are_skipped_and_counted(files, caplog):
    for i in (1, 4, 5, 6, 7):
        files[i].image.write_bytes(files[i].image.read_bytes()[:60])
    transform = PREPROCESSING.transform()
    with pytest.raises(ImageReadError, match=r'1\.png'):
        list(batches(files, transform, batch_size=4))
    with caplog.at_level(logging.WARNING):
        loader = batches(files, transform, batch_size=4, on_error='skip')
        for _ in range(2):
            served = list(loader)
            assert [batch.indices.tolist() for batch in served] == [[0, 2, 3], [8, 9, 10]]
            assert [len(batch.images) for batch in served] == [3, 3]
    assert sorted(loader.skipped) == [1, 4, 5, 6, 7]
    assert '4.png' in loader.skipped[4]
    assert len(caplog.records) == 5  # each named once, not once an epoch


def test_grey_mode_for_models_with_one_channel(files):
    (batch,) = batches(files[:3], Preprocessing((1, 16, 16), (0.5,), (0.5,)).transform(), mode='L')
    assert batch.images.shape == (3, 1, 16, 16)


def test_transforms_suit_the_data(arrays, files):
    def data(samples, cameras):
        return RetrievalData('toy', samples[:4], samples[4:], samples[4:], cameras=cameras, shared=True)

    train, test = make_transforms(data(arrays, cameras=True), PREPROCESSING)
    assert isinstance(train, TensorTransform)
    assert train.shift > 0
    assert train.hflip == 0
    assert test == TensorTransform(HALF, HALF)
    for samples, cameras, size in ((arrays, True, (3, 24, 24)), (files, True, SIZE), (files, False, SIZE)):
        for transform in make_transforms(data(samples, cameras), Preprocessing(size, HALF, HALF)):
            (batch,) = batches(samples, transform)
            assert batch.images.shape == (11, *size)


def test_refuses_what_it_cannot_serve(arrays, files):
    with pytest.raises(ValueError, match='samples must not be empty'):
        batches([], TensorTransform())
    with pytest.raises(ValueError, match='batch_size must be at least 1, got 0'):
        batches(arrays, TensorTransform(), batch_size=0)
    with pytest.raises(ValueError, match='arrays of one shape'):
        batches(files, TensorTransform())
    odd = Sample(np.zeros((16, 16), np.uint8), 0)
    with pytest.raises(ValueError, match='arrays of one shape'):
        batches([*arrays, odd], TensorTransform())


@pytest.mark.parametrize('source', ['memory', 'loader', 'workers'])
def test_an_epoch_goes_on_from_any_batch(arrays, files, source):
    def serve():
        sampler = ShuffleSampler(11, 4, seed=1, drop_last=False)
        sampler.set_epoch(2)
        if source == 'memory':
            return batches(arrays, TensorTransform(HALF, HALF, shift=0.2, erase=0.5), sampler=sampler, seed=3)
        transform = train_transform(PREPROCESSING, color_jitter=0.4, erase=0.5)
        return batches(files, transform, sampler=sampler, seed=3, workers=2 * (source == 'workers'))

    whole, rest = serve(), serve()
    rest.start_at(1)
    for expected, found in zip(list(whole)[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert len(list(rest)) == 3, 'the epoch after it is whole'
    rest.start_at(3)
    assert not list(rest)
    with pytest.raises(ValueError, match=r'batch must be in \[0, 3\]'):
        rest.start_at(4)
