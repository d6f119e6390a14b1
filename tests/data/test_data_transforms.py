import math

import numpy as np
import pytest
import torch
from PIL import Image

from sfsc_timm.data import Preprocessing, TensorTransform, train_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PREPROCESSING = Preprocessing((3, 32, 32), MEAN, STD)
PLAIN = {'mean': (0.0,), 'std': (1.0,)}


def photo(height=50, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('crop', ['resized', 'pad'])
@pytest.mark.parametrize('channels', [1, 3])
def test_train_transform_gives_the_size_asked_for(crop, channels):
    preprocessing = Preprocessing((channels, 32, 16), MEAN[:channels], STD[:channels])
    transform = train_transform(preprocessing, crop=crop, erase=1.0)
    image = Image.fromarray(photo()).convert('L' if channels == 1 else 'RGB')
    out = transform(image)
    assert out.shape == (channels, 32, 16)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_flip_can_be_switched_off():
    image = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 1, 3)))
    for crop, options in (('pad', {'padding': 0}), ('resized', {'scale': (0.9, 1.0)})):
        transform = train_transform(PREPROCESSING, crop=crop, hflip=0.0, **options)
        assert all(transform(image)[0].diff(dim=1).sum() > 0 for _ in range(8))
        transform = train_transform(PREPROCESSING, crop=crop, hflip=1.0, **options)
        assert transform(image)[0].diff(dim=1).sum() < 0


def test_preprocessing_squashes_or_crops():
    image = Image.fromarray(np.concatenate([np.zeros((32, 32, 3)), np.full((32, 32, 3), 255)]).astype(np.uint8))
    squashed = Preprocessing((3, 32, 32), (0.0,) * 3, (1.0,) * 3, crop_mode='squash').transform()(image)
    assert squashed[:, :14].max() < 0.1
    assert squashed[:, 18:].min() > 0.9
    cropped = Preprocessing((3, 32, 32), (0.0,) * 3, (1.0,) * 3).transform()(image)
    assert torch.equal(cropped[:, 0], torch.zeros(3, 32))
    assert torch.equal(cropped[:, 31], torch.ones(3, 32))


def test_tensor_transform_agrees_with_the_image_transform():
    images = np.stack([photo(32, 32, seed) for seed in range(3)])
    expected = torch.stack([PREPROCESSING.transform()(Image.fromarray(image)) for image in images])
    torch.testing.assert_close(TensorTransform(MEAN, STD)(torch.from_numpy(images)), expected)


def test_one_channel_agrees_with_pillows_grey():
    images = np.stack([photo(32, 32, seed) for seed in range(3)])
    expected = np.stack([np.asarray(Image.fromarray(image).convert('L')) for image in images]) / 255
    grey = TensorTransform(**PLAIN)(torch.from_numpy(images))
    assert grey.shape == (3, 1, 32, 32)
    assert np.abs(grey[:, 0].numpy() - expected).max() < 1.01 / 255


def test_grey_images_fill_three_channels():
    grey = torch.from_numpy(photo(8, 8)[..., 0])[None]
    out = TensorTransform(MEAN, STD)(grey)
    assert out.shape == (1, 3, 8, 8)
    for c in range(3):
        torch.testing.assert_close(out[0, c], (grey[0] / 255 - MEAN[c]) / STD[c])


def spot(height, width, y, x):
    """A smooth spot whose centre of mass is easy to find."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return torch.from_numpy(255 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)).round().to(torch.uint8)


def centre(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weight = image.double().numpy()
    return (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()


def test_rotation_turns_about_the_centre_of_a_non_square_image():
    images = spot(60, 40, 20, 28).expand(200, -1, -1)
    out = TensorTransform(**PLAIN, rotate=20.0)(images, torch.Generator().manual_seed(0))[:, 0]
    centres = np.array([centre(image) for image in out]) - (30, 20)
    assert np.allclose(np.hypot(*centres.T), math.hypot(10, 8), atol=0.2)
    angles = np.degrees(np.arctan2(*centres.T)) - math.degrees(math.atan2(-10, 8))
    assert angles.min() < -17
    assert angles.max() > 17
    assert np.abs(angles).max() < 20.5


def test_shift_and_zoom_stay_in_their_ranges():
    generator = torch.Generator().manual_seed(0)
    images = spot(40, 40, 20, 28).expand(200, -1, -1)
    shifted = TensorTransform(**PLAIN, shift=0.1)(images, generator)[:, 0]
    offsets = np.array([centre(image) for image in shifted]) - (20, 28)
    assert 3.5 < np.abs(offsets).max() < 4.05
    zoomed = TensorTransform(**PLAIN, zoom=0.25)(images, generator)[:, 0]
    distances = np.array([centre(image) for image in zoomed])[:, 1] - 20
    assert distances.min() == pytest.approx(8 / 1.25, abs=0.2)
    assert distances.max() == pytest.approx(8 * 1.25, abs=0.2)


def test_hflip_mirrors():
    images = torch.from_numpy(photo(6, 8)[..., 0])[None]
    out = TensorTransform(**PLAIN, hflip=1.0)(images)
    torch.testing.assert_close(out[0, 0], images[0].flip(1) / 255, atol=1e-5, rtol=0)


def test_erase_sets_a_rectangle_to_the_mean():
    images = torch.full((300, 20, 30), 255, dtype=torch.uint8)
    out = TensorTransform((0.5,), (1.0,), erase=0.5)(images, torch.Generator().manual_seed(0))[:, 0]
    erased = out == 0
    share = erased.float().mean((1, 2))
    hit = share > 0
    assert 0.4 < hit.float().mean() < 0.6
    assert share[hit].min() > 0.01
    assert share.max() < 0.25
    for mask in erased[hit][:20]:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()


def test_contrast_keeps_the_range():
    images = torch.from_numpy(photo(8, 8)[..., 0]).expand(64, -1, -1)
    out = TensorTransform(**PLAIN, contrast=0.5)(images, torch.Generator().manual_seed(0))
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.mean((1, 2, 3)).std() > 0.05


def test_same_generator_same_batch():
    transform = TensorTransform(MEAN, STD, 0.1, 10, 0.2, 0.3, 0.5, 0.5)
    images = torch.from_numpy(np.stack([photo(16, 16, seed) for seed in range(4)]))
    one, same, other = (transform(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: train_transform(PREPROCESSING, crop='random'), "crop must be 'resized' or 'pad', got 'random'"),
        (lambda: TensorTransform((0.5, 0.5), (1.0, 1.0)), 'mean and std must both have 1 or 3 values'),
        (lambda: TensorTransform((0.5,), (1.0,) * 3), 'mean and std must both have 1 or 3 values'),
        (lambda: TensorTransform(shift=-0.1), 'shift must be at least 0, got -0.1'),
        (lambda: TensorTransform(hflip=2), r'hflip must be a probability in \[0, 1\], got 2'),
        (lambda: train_transform(PREPROCESSING, hflip=2), r'hflip must be a probability in \[0, 1\], got 2'),
        (lambda: train_transform(PREPROCESSING, erase=-1), r'erase must be a probability in \[0, 1\], got -1'),
    ],
)
def test_refuses_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
