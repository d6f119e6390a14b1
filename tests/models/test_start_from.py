"""All widths start from a network that was trained as a whole."""

from __future__ import annotations

import pytest
import torch
from helpers.zoo import CONVNEXT, RESNET, Member, assert_close_to, images, predict

from sfsc_timm.models import start_from


def whole_of(zoo: Member) -> torch.nn.Module:
    """A network of full width whose norms have seen images."""
    whole = zoo.create(widths=(1.0,))
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        whole.train()(images(batch=8))
    return whole.eval()


@pytest.mark.parametrize('zoo', [RESNET, CONVNEXT], ids=['resnet', 'convnext'])
def test_the_full_width_is_the_network_and_the_others_are_its_slices(zoo: Member) -> None:
    whole, model, x = whole_of(zoo), zoo.create(), images()
    model.set_width(0.5)
    start_from(model, whole)
    assert model.width == 0.5
    with model.at_width(1.0):
        assert_close_to(predict(model, x), predict(whole, x))
    dense = whole.extract(1.0).state_dict()
    for name, tensor in model.extract(0.5).state_dict().items():
        if tensor.ndim and not name.startswith('neck'):
            leading = dense[name][tuple(slice(size) for size in tensor.shape)]
            torch.testing.assert_close(tensor, leading, msg=name)


def test_another_network_is_refused() -> None:
    for changes in ({'num_classes': 3}, {'embed_dim': 8}):
        with pytest.raises(ValueError, match='whole must be of the same architecture and classes'):
            start_from(RESNET.create(), RESNET.create(widths=(1.0,), **changes))
