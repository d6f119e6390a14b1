"""Weights that ship are believed by the id of before, which their manifest declares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import load_file, save_file

from sfsc_timm.checkpoints import load_checkpoint_model, space_id, weights_digest
from sfsc_timm.models._shipped import MANIFEST, shipped_id, weights_folder

NAME = 'sfsc_resnet18d.sfsc_emoji'


def test_they_load_and_embed_into_one_space() -> None:
    model: Any = timm.create_model(NAME, pretrained=True)
    checkpoint = load_checkpoint_model(NAME)
    declared = json.loads((weights_folder() / MANIFEST).read_text())[NAME]['compatibility']
    assert checkpoint.compatibility == declared == shipped_id(weights_folder() / f'{NAME}.safetensors')
    assert checkpoint.space == space_id(model)
    assert checkpoint.digest(0.5) == weights_digest(model, 0.5)
    assert load_checkpoint_model(NAME.partition('.')[0]).space == checkpoint.space


def test_other_weights_in_their_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size, which is all that the registry looks at."""
    file = tmp_path / f'{NAME}.safetensors'
    state = load_file(weights_folder() / file.name)
    save_file({name: t.mul(1.01) if t.is_floating_point() else t for name, t in state.items()}, file)
    shutil.copy(weights_folder() / MANIFEST, tmp_path)
    cfg = timm.get_pretrained_cfg(NAME)
    assert file.stat().st_size == Path(cfg.file).stat().st_size
    monkeypatch.setattr(timm, 'get_pretrained_cfg', lambda *_, **__: cfg)
    monkeypatch.setattr(cfg, 'file', str(file))
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, **kwargs: create(name, pretrained_cfg=cfg, **kwargs))
    with pytest.raises(ValueError, match='holds other weights than the manifest beside it declares'):
        load_checkpoint_model(NAME)


def test_files_that_do_not_ship_declare_nothing(tmp_path: Path) -> None:
    assert shipped_id(tmp_path / 'a.safetensors') is None
    assert shipped_id(weights_folder() / 'other.safetensors') is None
