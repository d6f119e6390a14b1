"""`Preprocessing`: ranges, timm's rules, what its dictionary and its steps say."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.data.transforms import str_to_interp_mode

from sfsc_timm.data import CROP_MODES, INTERPOLATIONS, Preprocessing, RetrievalData, Sample

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = Preprocessing((3, 32, 24), MEAN, STD, 'bilinear', 0.9, 'squash')


@pytest.mark.parametrize('mode', CROP_MODES)
@pytest.mark.parametrize('crop_pct', [0.8, 1.0, 1.15])
def test_transform_is_timms(mode, crop_pct):
    values = {**asdict(SMALL), 'crop_mode': mode, 'crop_pct': crop_pct}
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    assert torch.equal(Preprocessing(**values).transform()(photo), create_transform(**values)(photo))


def test_every_interpolation_is_timms():
    assert [str_to_interp_mode(name).value for name in INTERPOLATIONS] == list(INTERPOLATIONS)


@pytest.mark.parametrize('name', ['resnet18', 'sfsc_resnet50', 'vit_small_patch16_224', 'hiera_tiny_224'])
def test_configurations_are_read_as_timm_reads_them(name):
    cfg = timm.get_pretrained_cfg(name).to_dict()
    assert asdict(Preprocessing.from_pretrained_cfg(cfg)) == resolve_data_config({}, pretrained_cfg=cfg)
    assert Preprocessing.from_pretrained_cfg({}) == Preprocessing(crop_pct=0.875)


def test_changes():
    assert SMALL.changed() is not None
    assert SMALL.changed(mean=None, img_size=None) == SMALL
    assert SMALL.changed(img_size=8).input_size == (3, 8, 8)
    assert SMALL.changed(input_size=[3, 8, 8], img_size=8, in_chans=3).input_size == (3, 8, 8)
    assert SMALL.changed(mean=[0.1]).mean == (0.1,) * 3
    grey = SMALL.changed(in_chans=1)
    assert grey.input_size == (1, 32, 24)
    assert grey.mean == pytest.approx((0.4,))
    assert grey.std == pytest.approx((0.25,))
    assert (grey.image_mode, SMALL.image_mode) == ('L', 'RGB')
    assert SMALL.changed(input_size=(1, 4, 4), mean=(0.2,)).mean == (0.2,)
    assert SMALL.changed(img_size=np.int64(8), mean=[np.float32(0.5)]).to_dict()['mean'] == [0.5] * 3


def test_the_dictionary_goes_through_json():
    values = json.loads(json.dumps(SMALL.to_dict()))
    assert values == {
        'input_size': [3, 32, 24], 'mean': list(MEAN), 'std': list(STD), 'interpolation': 'bilinear', 'crop_pct': 0.9,
        'crop_mode': 'squash',
    }  # fmt: skip
    assert Preprocessing.from_dict(values) == SMALL
    for wrong in ({**values, 'flip': True}, {'mean': [0.5]}):
        with pytest.raises(ValueError, match='preprocessing must have the entries'):
            Preprocessing.from_dict(wrong)


def test_data_with_cameras_is_seen_whole():
    train, query, gallery = ([Sample(np.zeros((4, 4), np.uint8), i, c)] for i, c in ((0, 0), (1, 0), (1, 1)))
    centre = SMALL.changed(crop_mode='center')
    assert centre.suited(RetrievalData('plain', train, query, gallery, cameras=False)) == centre
    suited = centre.suited(RetrievalData('persons', train, query, gallery, cameras=True))
    assert (suited.crop_mode, suited.crop_pct) == ('squash', 1.0)


@pytest.mark.parametrize('mode, resize, pad', [
    ('squash', {'size': [40, 30], 'keep_ratio': False}, None),
    ('border', {'fit_inside': [40, 30], 'keep_ratio': True}, [128, 102, 76]),
    ('center', {'cover': [40, 30], 'keep_ratio': True}, None),
])  # fmt: skip
def test_steps(mode, resize, pad):
    steps = SMALL.changed(crop_mode=mode, crop_pct=0.8).steps()
    assert steps[0] == {'resize': {'interpolation': 'bilinear', 'antialias': True, **resize}}
    assert steps[1]['crop'].get('pad_with') == pad
    assert steps[1]['crop']['size'] == [32, 24]
    assert steps[2:] == [{'scale': 1 / 255}, {'normalise': {'mean': list(MEAN), 'std': list(STD)}}]


@pytest.mark.parametrize('changes, message', [
    ({'std': [-1.0]}, r'std must be in \[0.001, 1\], got -1.0; images are scaled to \[0, 1\] first'),
    ({'std': (0.2, 0.2, 0)}, r'std must be in \[0.001, 1\], got 0'),
    ({'mean': [127]}, r'mean must be in \[0, 1\], got 127'),
    ({'mean': [-3.0]}, r'mean must be in \[0, 1\], got -3.0'),
    ({'mean': [10**400]}, r'mean must be in \[0, 1\], got 1000'),
    ({'mean': [float('nan')]}, r'mean must be in \[0, 1\], got nan'),
    ({'mean': (0.5, 0.5)}, 'mean must have a value for each of the 3 channels'),
    ({'mean': 0.5}, 'mean must be a number for each channel, got 0.5'),
    ({'mean': ['a']}, r"mean must be in \[0, 1\], got 'a'"),
    ({'mean': [True]}, r'mean must be in \[0, 1\], got True'),
    ({'crop_pct': 0}, r'crop_pct must be in \[0.1, 2\], got 0'),
    ({'crop_pct': 0.001}, 'crop_pct must be in'),
    ({'crop_pct': 87.5}, 'crop_pct must be in'),
    ({'crop_pct': '1'}, "crop_pct must be in .*, got '1'"),
    ({'crop_mode': 'nonsense'}, "crop_mode must be one of center, squash, border, got 'nonsense'"),
    ({'crop_mode': ['center']}, 'crop_mode must be one of'),
    ({'interpolation': 'random'}, "interpolation must be one of nearest, .*, got 'random'"),
    ({'img_size': 0}, 'input_size must be channels, height and width, whole numbers from 1 to 8192'),
    ({'img_size': 32.5}, 'input_size must be'),
    ({'img_size': True}, 'input_size must be'),
    ({'input_size': (3, 32)}, 'input_size must be'),
    ({'input_size': (3, 10**6, 32)}, 'input_size must be'),
    ({'input_size': (3, 32, 32), 'img_size': 64}, 'input_size must agree with'),
    ({'input_size': (3, 32, 32), 'in_chans': 1}, 'input_size must agree with'),
    ({'size': 32}, 'preprocessing has the entries .*, got size'),
])  # fmt: skip
def test_refuses_what_is_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        SMALL.changed(**changes)


@pytest.mark.parametrize('entry', [{'crop_pct': 0}, {'mean': []}, {'std': [0, 0, 0]}, {'input_size': 'large'}])
def test_damaged_configurations_are_refused(entry):
    with pytest.raises(ValueError, match=f'{next(iter(entry))} must '):
        Preprocessing.from_pretrained_cfg({'mean': MEAN, 'std': STD, **entry})
