"""Models come back from disk through timm's own functions, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import FAMILIES, RESNET, Member, images, name_of, predict
from timm.models import save_for_hf

import sfsc_timm


def reload(model: Any, folder: Path, **kwargs: Any) -> Any:
    save_for_hf(model, str(folder), safe_serialization=True)
    assert not list(folder.glob('*.bin'))
    return timm.create_model(f'local-dir:{folder}', pretrained=True, **kwargs).eval()


@pytest.mark.parametrize('member', FAMILIES, ids=name_of)
def test_a_folder_of_timms_layout(member: Member, tmp_path: Path) -> None:
    model, x = member.create(embed_dim=32, widths=(0.5, 0.25, 1)), images()
    again = reload(model, tmp_path)
    assert type(again) is type(model)
    assert again.widths == (0.25, 0.5, 1.0)
    assert (again.width, again.embed_dim, again.num_classes) == (1.0, 32, 10)
    for width in model.widths:
        model.set_width(width)
        again.set_width(width)
        assert torch.equal(predict(again, x), predict(model, x))


def test_the_width_is_recorded(tmp_path: Path) -> None:
    model, x = RESNET.create(), images()
    model.set_width(0.25)
    assert json.loads(json.dumps(model._model_args))['width'] == 0.25
    again = reload(model, tmp_path)
    assert again.width == 0.25
    assert torch.equal(predict(again, x), predict(model, x))
    assert reload(model, tmp_path, width=0.5).width == 0.5


def test_the_width_is_recorded_by_the_free_function_too(tmp_path: Path) -> None:
    model = RESNET.create()
    sfsc_timm.set_width(model, 0.25)
    assert reload(model, tmp_path).width == 0.25


def test_a_block_at_another_width_records_nothing(tmp_path: Path) -> None:
    model = RESNET.create(width=0.5)
    with model.at_width(0.25):
        pass
    assert reload(model, tmp_path).width == 0.5


def test_options_of_the_head_are_recorded(tmp_path: Path) -> None:
    model, x = RESNET.create(classifier_type='cosine', cosine_scale=8.0, neck_norm=False, global_pool='max'), images()
    again = reload(model, tmp_path)
    assert again.fc.scale == 8.0
    assert torch.equal(predict(again, x), predict(model, x))


def test_a_folder_as_features_only(tmp_path: Path) -> None:
    model, x = RESNET.create(), images()
    features = reload(model, tmp_path, features_only=True, width=0.5)
    model.set_width(0.5)
    expected = model.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(predict(features, x), expected, strict=True):
        assert torch.equal(ours, theirs.detach())


def test_a_folder_with_another_number_of_classes(tmp_path: Path) -> None:
    model, x = RESNET.create(), images()
    embedding = model.forward_head(model.forward_features(x), pre_logits=True).detach()
    bare = reload(model, tmp_path, num_classes=0)
    assert torch.equal(predict(bare, x), embedding)
    assert predict(reload(model, tmp_path, num_classes=3), x).shape == (2, 3)
