"""What the pixels of a file mean: the rules of `DECODING`, each against an image whose right pixels are known."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from sfsc_timm.data import DECODING, ImageReadError, load_image
from sfsc_timm.evaluation.contact_sheet import _pixels

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How an upright image is stored under each orientation: the inverse of what a viewer does."""


def upright() -> np.ndarray:
    """Four corners of different colours and a rectangle's shape: every turn gives another image."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 250, 20, 20
    image[:16, 24:] = 20, 250, 20
    image[16:, :24] = 20, 20, 250
    image[16:, 24:] = 230, 230, 20
    return image


def pixels(source: Path | np.ndarray, mode: str = 'RGB') -> np.ndarray:
    return np.asarray(load_image(source, mode)).astype(int)


def test_the_version_is_raised_with_the_rules() -> None:
    """Version 1 ignored orientation and colour profiles and clipped 16-bit images."""
    assert DECODING == 2


@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp', 'avif'])
def test_orientation_is_honoured(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == 'avif' and not features.check('avif'):
        pytest.skip('this Pillow reads no AVIF')
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](upright())))
    options = {'lossless': True} if suffix == 'webp' else {'quality': 95}
    stored.save(tmp_path / f'a.{suffix}', exif=exif, **options)
    assert np.abs(pixels(tmp_path / f'a.{suffix}') - upright()).mean() < 6


def jpeg(exif: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(upright()).save(file, 'JPEG', quality=95, exif=exif)
    return file.getvalue()


def tag(kind: int, count: int, value: bytes) -> bytes:
    """EXIF of one entry, the orientation."""
    head = b'Exif\0\0II*\0' + struct.pack('<I', 8)
    return head + struct.pack('<HHHI', 1, 0x0112, kind, count) + value.ljust(4, b'\0')[:4] + b'\0\0\0\0'


@pytest.mark.parametrize(
    'exif',
    [
        b'Exif\0\0' + b'rubbish' * 9,
        b'Exif\0\0II*\0\xff\xff\xff\xff',
        b'Exif\0\0',
        tag(3, 1, b'\x09\0'),
        tag(3, 1, b'\0\0'),
        tag(2, 4, b'6abc'),
        tag(5, 1, b'\xff\xff\xff\0'),
        tag(7, 2, b'\x06\x06'),
        tag(99, 1, b'\x06\0'),
    ],
)
def test_broken_exif_is_no_error(tmp_path: Path, exif: bytes) -> None:
    (tmp_path / 'a.jpg').write_bytes(jpeg(exif))
    assert np.abs(pixels(tmp_path / 'a.jpg') - upright()).mean() < 6


def ramp() -> np.ndarray:
    """Every grey once, uint8 (16, 16)."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize('suffix', ['png', 'tif', 'pgm'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str, mode: str) -> None:
    Image.fromarray(ramp().astype(np.uint16) * 257).save(tmp_path / f'a.{suffix}')
    found = pixels(tmp_path / f'a.{suffix}', mode)
    assert (found.reshape(16, 16, -1) == ramp()[..., None]).all()


def test_sixteen_bits_in_arrays_and_big_endian_files(tmp_path: Path) -> None:
    wide = ramp().astype(np.uint16) * 257
    assert (pixels(wide) == ramp()[..., None]).all()
    Image.fromarray(wide.astype('>u2')).save(tmp_path / 'a.tif')
    assert (pixels(tmp_path / 'a.tif') == ramp()[..., None]).all()


def tiff(bits: int, photometric: int, data: bytes, side: int, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF of one strip."""
    entries = [(256, side), (257, side), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, side)]
    entries += [(279, len(data)), (339, sample_format)]
    table = struct.pack('<H', len(entries)) + b''.join(struct.pack('<HHII', k, 4, 1, v) for k, v in entries) + bytes(4)
    return b'II*\0' + struct.pack('<I', 8 + len(data)) + data + table


def test_twelve_bits_in_a_tiff_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    values = np.full((16, 16), 4095, np.uint16)
    values[0] = 0
    a, b = values.ravel()[::2], values.ravel()[1::2]
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    (tmp_path / 'a.tif').write_bytes(tiff(12, 1, packed, 16))
    assert pixels(tmp_path / 'a.tif', 'L').tolist() == [[0] * 16] + [[255] * 16] * 15


@pytest.mark.parametrize('bits', [8, 16])
def test_tiffs_in_which_white_is_zero_are_not_negatives(tmp_path: Path, bits: int) -> None:
    stored = ramp() if bits == 8 else ramp().astype('<u2') * 257
    (tmp_path / 'a.tif').write_bytes(tiff(bits, 0, stored.tobytes(), 16))
    assert (pixels(tmp_path / 'a.tif', 'L') == 255 - ramp()).all()


@pytest.mark.parametrize('kind', ['int32', 'float32'])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(ramp().astype(kind)).save(tmp_path / 'a.tif')
    with pytest.raises(ImageReadError, match=r'a\.tif.*have no known range; convert it to 8 or 16 bits'):
        load_image(tmp_path / 'a.tif')


def test_a_transparent_grey_of_sixteen_bits_becomes_white(tmp_path: Path) -> None:
    Image.fromarray(ramp().astype(np.uint16) * 257).save(tmp_path / 'a.png', transparency=257 * 7)
    found = pixels(tmp_path / 'a.png', 'L').ravel()
    assert found[7] == 255
    assert (np.delete(found, 7) == np.delete(np.arange(256), 7)).all()


def profile(red: float = 0.64) -> bytes:
    """sRGB's profile, or one whose red primary lies elsewhere (a hue of its own)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    if red == 0.64:
        return bytes(data)
    where = {}
    for i in range(struct.unpack('>I', data[128:132])[0]):
        name, offset, _ = struct.unpack('>4sII', data[132 + 12 * i : 144 + 12 * i])
        where[name] = offset
    # Red and blue change places: what a wide profile does a little, this one does as far as can be.
    size = 20
    first, last = where[b'rXYZ'], where[b'bXYZ']
    data[first : first + size], data[last : last + size] = data[last : last + size], data[first : first + size]
    return bytes(data)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_colour_profiles_are_converted_to_srgb(tmp_path: Path, suffix: str) -> None:
    options = {'lossless': True} if suffix == 'webp' else {'quality': 100}
    Image.fromarray(upright()).save(tmp_path / f'a.{suffix}', icc_profile=profile(red=0.15), **options)
    assert np.abs(pixels(tmp_path / f'a.{suffix}') - upright()[..., ::-1]).mean() < 6


def test_srgb_profiles_leave_the_pixels_alone_and_foreign_or_damaged_ones_are_ignored(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for number, data in enumerate([profile(), profile()[:200], b'rubbish' * 30]):
        file = tmp_path / f'{number}.png'
        Image.fromarray(noise).save(file, icc_profile=data)
        assert (pixels(file) == noise).all()
    Image.fromarray(noise[..., 0]).save(tmp_path / 'grey.png', icc_profile=profile(red=0.15))
    assert (pixels(tmp_path / 'grey.png', 'L') == noise[..., 0]).all()


@pytest.mark.parametrize('mode', ['RGBA', 'P'])
def test_profiles_go_with_alpha_and_palettes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(upright())
    if mode == 'P':
        image = image.quantize(4)
    else:
        image.putalpha(Image.fromarray(np.repeat([[255] * 24 + [0] * 24], 32, 0).astype(np.uint8)))
    image.save(tmp_path / 'a.png', icc_profile=profile(red=0.15))
    expected = upright()[..., ::-1].astype(int)
    if mode == 'RGBA':
        expected[:, 24:] = 255
    assert np.abs(pixels(tmp_path / 'a.png') - expected).mean() < 6


def test_cmyk_looks_as_it_was_meant(tmp_path: Path) -> None:
    Image.fromarray(upright()).convert('CMYK').save(tmp_path / 'a.jpg', quality=95)
    assert np.abs(pixels(tmp_path / 'a.jpg') - upright()).mean() < 8
    Image.fromarray(upright()).convert('CMYK').save(tmp_path / 'a.tif')
    assert np.abs(pixels(tmp_path / 'a.tif') - upright()).mean() < 8


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'YCbCr', 'LAB'])
def test_every_mode_is_read(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(upright()).convert('L').point(lambda value: 255 * (value > 60))
    if mode == 'LAB':
        lab = ImageCms.createProfile('LAB')
        image = ImageCms.profileToProfile(grey.convert('RGB'), ImageCms.createProfile('sRGB'), lab, outputMode='LAB')
    else:
        image = grey.convert('RGB').convert(mode)
    image.save(tmp_path / 'a.tif')
    assert np.abs(pixels(tmp_path / 'a.tif', 'L') - np.asarray(grey)).max() < 4


@pytest.mark.parametrize('suffix', ['gif', 'png', 'webp', 'tif', 'avif'])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    if suffix == 'avif' and not features.check('avif'):
        pytest.skip('this Pillow reads no AVIF')
    frames = [Image.fromarray(upright()), Image.new('RGB', (48, 32), 'black')]
    frames[0].save(tmp_path / f'a.{suffix}', save_all=True, append_images=frames[1:])
    assert np.abs(pixels(tmp_path / f'a.{suffix}') - upright()).mean() < 8


def huge_png(width: int, height: int) -> bytes:
    """Declares a size that its few bytes do not hold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


def test_decompression_bombs_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes(huge_png(20_000, 20_000))
    with pytest.raises(ImageReadError, match=r'a\.png.*400000000 pixels.*scale it down.*MAX_IMAGE_PIXELS'):
        load_image(tmp_path / 'a.png')


def test_images_like_a_thread_are_refused(tmp_path: Path) -> None:
    """Resized until its shorter side fits a model, such an image would fill the memory."""
    Image.new('L', (1, 30_000)).save(tmp_path / 'a.png')
    with pytest.raises(ImageReadError, match=r'a\.png.*1 x 30000 pixels.*crop it'):
        load_image(tmp_path / 'a.png')
    Image.new('L', (2, 400)).save(tmp_path / 'b.png')
    assert load_image(tmp_path / 'b.png').size == (2, 400)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'gif', 'tif', 'webp', 'bmp', 'avif'])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    if suffix == 'avif' and not features.check('avif'):
        pytest.skip('this Pillow reads no AVIF')
    file = tmp_path / f'a.{suffix}'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    whole = file.read_bytes()
    for share in (0.02, 0.3, 0.8):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageReadError, match=rf'{file.name}.*damaged or cut off|{file.name}.*is no image'):
            load_image(file)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / 'folder.jpg').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'text.jpg').write_text('hello')
    for name, reason in {
        'absent.jpg': 'there is no such file',
        'folder.jpg': 'it is a folder',
        'pipe.jpg': 'it is no regular file',
        'text.jpg': 'it is no image that Pillow can read',
    }.items():
        with pytest.raises(ImageReadError, match=f'{name}.*{reason}'):
            load_image(tmp_path / name)
    (tmp_path / 'text.heic').write_text('hello')
    with pytest.raises(ImageReadError, match='pip install pillow-heif'):
        load_image(tmp_path / 'text.heic')


def test_arrays_of_other_kinds_are_refused() -> None:
    with pytest.raises(ImageReadError, match=r'float64 of shape \(2, 2\)'):
        load_image(np.zeros((2, 2)))
    with pytest.raises(ImageReadError, match=r'uint8 of shape \(2, 2, 7\)'):
        load_image(np.zeros((2, 2, 7), np.uint8))


def test_contact_sheets_show_what_was_embedded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(TURNS[6](upright()))).save(tmp_path / 'a.png', exif=exif)
    assert (_pixels(tmp_path / 'a.png') == upright()).all()


def test_bytes_are_decoded_as_the_file_that_held_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    path = tmp_path / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    assert load_image(path.read_bytes()).tobytes() == load_image(path).tobytes()


def test_bytes_are_of_formats_that_start_no_program(tmp_path):
    path = tmp_path / 'a.eps'
    Image.new('RGB', (4, 4)).save(path)
    with pytest.raises(ImageReadError, match=r'image of \d+ bytes: it is no image that Pillow can read; convert it'):
        load_image(path.read_bytes())
