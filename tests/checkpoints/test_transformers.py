"""Width folders in Hugging Face's transformers, by its wrapper of timm's models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.zoo import CONVNEXT, EFFICIENTNET, RESNET, Member, assert_close_to, embed, images

from sfsc_timm.checkpoints import save_width

pytestmark = pytest.mark.transformers


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, offline."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    return pytest.importorskip('transformers')


@pytest.mark.parametrize('member', [RESNET, CONVNEXT], ids=['resnet18d', 'convnext_atto'])
def test_the_embedding_is_in_the_place_of_the_logits(member: Member, transformers: Any, tmp_path: Path) -> None:
    """... of AutoModelForImageClassification; AutoModel leaves that layer out, as timm's num_classes=0 does."""
    model, x = member.create(embed_dim=24), images(size=64)
    model.set_width(0.5)
    folder = save_width(model, 0.5, tmp_path / 'w0.5')
    loaded = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert_close_to(loaded(x).logits, embed(model, x))
    dense = model.extract(0.5, plain=True)
    dense.reset_classifier(0)
    features = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        assert_close_to(features(x).pooler_output, dense(x))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert tuple(processor.data_config['input_size']) == tuple(model.pretrained_cfg['input_size'])


WITHOUT = """
import sys
from transformers import AutoModel
AutoModel.from_pretrained(sys.argv[1])
"""


def test_a_form_of_the_plugin_is_refused_by_name(transformers: Any, tmp_path: Path) -> None:
    folder = save_width(EFFICIENTNET.create(embed_dim=24), 0.5, tmp_path / 'w0.5', allow_plugin=True)
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT, str(folder)],
        capture_output=True, text=True, check=False, env={**os.environ, 'HF_HUB_OFFLINE': '1'},
    )  # fmt: skip
    assert done.returncode != 0
    assert "'sfsc_efficientnet_b0'" in done.stderr
    with pytest.raises(RuntimeError):  # with the plugin neither: its tensors have other shapes than transformers sees
        transformers.AutoModel.from_pretrained(folder)
