"""Files that say how images become an input say by which rules they are decoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.checkpoints import DATA_CONFIG, tiny

from sfsc_timm.checkpoints import load_checkpoint_model, save_model, save_width
from sfsc_timm.data import DECODING
from sfsc_timm.export import write_preprocessing


def section_of(folder: Path) -> dict[str, object]:
    section: dict[str, object] = json.loads((folder / 'config.json').read_text())['sfsc']
    return section


def test_saved_folders(tmp_path: Path) -> None:
    model = tiny(widths=(0.5, 1.0))
    for folder in (
        save_model(model, tmp_path / 'whole', data_config=DATA_CONFIG),
        save_width(model, 0.5, tmp_path / 'w0.5', data_config=DATA_CONFIG),
    ):
        assert section_of(folder)['decoding'] == DECODING


@pytest.mark.parametrize('version', [DECODING + 1, 0, '2', True, 1.5])
def test_rules_of_a_newer_release_are_refused(tmp_path: Path, version: object) -> None:
    folder = save_width(tiny(widths=(0.5, 1.0)), 0.5, tmp_path / 'w0.5', data_config=DATA_CONFIG)
    config = json.loads((folder / 'config.json').read_text())
    config['sfsc']['decoding'] = version
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'w0\.5.*decoding must be .*newer'):
        load_checkpoint_model(folder)
    del config['sfsc']['decoding']  # as before there were versions
    (folder / 'config.json').write_text(json.dumps(config))
    load_checkpoint_model(folder)


def test_the_sidecar_of_onnx_tells_the_rules_to_devices_without_this_package(tmp_path: Path) -> None:
    folder = save_width(tiny(widths=(0.5, 1.0)), 0.5, tmp_path / 'w0.5', data_config=DATA_CONFIG)
    stated = json.loads(write_preprocessing(tmp_path / 'p.json', load_checkpoint_model(folder), 0.5).read_text())
    assert stated['decoding'] == {
        'version': DECODING,
        'orientation': 'EXIF',
        'frame': 'first',
        'colours': 'sRGB, converted from embedded profiles',
        'transparent': 'white',
        'wide_greys': 'scaled from the range of their type to 8 bits',
    }
