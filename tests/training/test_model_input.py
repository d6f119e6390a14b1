"""A model that is made for one size of images is made for that of the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfsc_timm.training.build import fit_model_to_input, probe, resolve_input
from sfsc_timm.training.config import TrainConfig

VIT = TrainConfig(model='sfsc_vit_tiny_patch16_224', data='glyphs', img_size=64, model_kwargs={'depth': 1})


def test_a_transformer_takes_the_size_of_the_images() -> None:
    given = resolve_input(VIT)
    config = fit_model_to_input(VIT, given)
    assert config.model_kwargs == {'depth': 1, 'img_size': [64, 64]}
    assert probe(config, given).pos_embed.shape == (1, 17, 192)
    assert fit_model_to_input(config, given) == config  # as a resumed run does


def test_others_take_any_size() -> None:
    for config in (
        replace(VIT, model='sfsc_resnet18d', model_kwargs={}),
        replace(VIT, model_kwargs={'dynamic_img_size': True}),
    ):
        assert fit_model_to_input(config, resolve_input(config)) is config


@pytest.mark.parametrize('size', [32, [64, 32]], ids=str)
def test_another_size_is_refused(size: int | list[int]) -> None:
    config = replace(VIT, model_kwargs={'img_size': size})
    with pytest.raises(ValueError, match=r'img_size in model_kwargs must be that of the images, \[64, 64\], got'):
        fit_model_to_input(config, resolve_input(config))
