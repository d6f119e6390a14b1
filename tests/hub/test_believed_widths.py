"""`load_width` takes a branch only if `main` declares its weights; repositories of before go by one id for all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers.checkpoints import tiny

from sfsc_timm.checkpoints import save_model, save_width
from sfsc_timm.hub import load_width

Hub = Callable[[Path, Path], None]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Gives two folders as main and as the branch of any width."""

    def place(main: Path, branch: Path) -> None:
        monkeypatch.setattr(huggingface_hub, 'hf_hub_download', lambda repo, file: str(main / file))
        monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda *_, **__: str(branch))

    return place


def refitted() -> Any:
    """The model with other statistics at width 0.25, of the same space."""
    model = tiny()
    with torch.no_grad(), model.at_width(0.25):
        model.train()(torch.rand(4, 3, 32, 32))
    return model.eval()


def without_digests(folder: Path) -> Path:
    config = json.loads((folder / 'config.json').read_text())
    for key in ('space', 'digests', 'weights'):
        del config['sfsc'][key]
    (folder / 'config.json').write_text(json.dumps(config))
    return folder


def test_a_branch_is_believed_by_its_digest(tmp_path: Path, hub: Hub) -> None:
    old, new = tiny(), refitted()
    main = save_model(new, tmp_path / 'main')
    for width in (0.25, 0.5):
        hub(main, save_width(new, width, tmp_path / 'new'))
        assert load_width('user/name', width) is not None
        hub(main, save_width(old, width, tmp_path / 'old'))
        if width == 0.25:
            with pytest.raises(ValueError, match='was interrupted'):
                load_width('user/name', width)
        else:  # this width is the same in both
            assert load_width('user/name', width) is not None
    hub(main, save_width(tiny(1), 0.5, tmp_path / 'foreign'))
    with pytest.raises(ValueError, match='was interrupted'):
        load_width('user/name', 0.5)


def test_weights_that_are_not_the_declared_ones(tmp_path: Path, hub: Hub) -> None:
    main, branch = save_model(tiny(), tmp_path / 'main'), save_width(tiny(), 0.5, tmp_path / 'w0.5')
    other = save_width(tiny(1), 0.5, tmp_path / 'other')
    shutil.copy(other / 'model.safetensors', branch / 'model.safetensors')
    hub(main, branch)
    with pytest.raises(ValueError, match=r'holds other weights than the config\.json beside it declares'):
        load_width('user/name', 0.5)


def test_repositories_of_before_go_by_the_id_of_all_weights(tmp_path: Path, hub: Hub) -> None:
    main = without_digests(save_model(tiny(), tmp_path / 'main'))
    hub(main, without_digests(save_width(tiny(), 0.5, tmp_path / 'same')))
    with pytest.warns(UserWarning, match='declares no digest of its weights'):
        assert load_width('user/name', 0.5) is not None
    hub(main, without_digests(save_width(tiny(1), 0.5, tmp_path / 'other')))
    with pytest.raises(ValueError, match='was interrupted'):
        load_width('user/name', 0.5)
    hub(save_model(tiny(), tmp_path / 'new'), without_digests(save_width(tiny(), 0.5, tmp_path / 'half')))
    with pytest.raises(ValueError, match='was interrupted'):  # a publish that goes on
        load_width('user/name', 0.5)
