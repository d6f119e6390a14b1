"""Tiny models, batches and a plain-autograd reference for the tests of the task."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

import sfsc_timm  # noqa: F401
from sfsc_timm.losses import CrossEntropyLoss
from sfsc_timm.tasks import SFSCTask

CLASSES = 5
SMALL_RESNET = {'channels': (16, 24, 32, 32), 'layers': (1, 1, 1, 1), 'stem_width': 8, 'embed_dim': 16}
SMALL_CONVNEXT = {'dims': (8, 16, 24, 32), 'depths': (1, 1, 1, 1), 'embed_dim': 16}


def convnext(**kwargs: Any) -> Any:
    """Without batch statistics: what a batch gives is the mean of what its halves give."""
    torch.manual_seed(0)
    options = {'num_classes': CLASSES, 'neck_norm': False, **SMALL_CONVNEXT, **kwargs}
    return timm.create_model('sfsc_convnext_atto', **options).train()


def resnet(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model('sfsc_resnet18d', **{'num_classes': CLASSES, **SMALL_RESNET, **kwargs}).train()


def batch(size: int = 4, seed: int = 1, pixels: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    return images, torch.randint(CLASSES, (size,), generator=generator)


class Opposing(CrossEntropyLoss):
    """Cross-entropy with its sign turned at every other call, so that neighbouring widths conflict for certain."""

    def __init__(self, sizes: int = 4) -> None:
        super().__init__()
        self._sizes, self._calls = sizes, 0

    def with_uncertainty(self, logits: Tensor, target: Tensor, kl_scale: Any = 1.0) -> tuple[Tensor, Tensor]:
        loss, uncertainty = super().with_uncertainty(logits, target)
        sign = (-1.0) ** (self._calls % self._sizes)
        self._calls += 1
        return sign * loss, uncertainty


def step(task: SFSCTask, images: Tensor, target: Tensor, factor: float = 1.0) -> dict[str, Any]:
    result = task(images, target)
    (result['loss'] * factor).backward()
    return result


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.detach().clone() for parameter in module.parameters() if parameter.grad is not None]


def gradients_of(task: SFSCTask, images: Tensor, target: Tensor) -> list[Tensor]:
    """Gradients of one step from scratch."""
    task.zero_grad()
    step(task, images, target)
    return gradients(task)


def assert_equal(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """Asserts that each tensor is equal up to `tolerance` of the largest entry in all of them."""
    assert len(actual) == len(expected) > 0
    largest = max(float(tensor.abs().max()) for tensor in expected)
    assert largest > 1e-6
    for ours, theirs in zip(actual, expected, strict=True):
        assert float((ours - theirs).detach().abs().max()) <= tolerance * largest


def plain_gradients(model: Any, images: Tensor, target: Tensor, criterion: Any) -> list[list[Tensor | None]]:
    """Zero-padded gradients of every width by ordinary autograd through the slices."""
    found = []
    for width in model.widths:
        with model.at_width(width):
            loss = criterion(model(images), target)
            found.append(list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    return found
