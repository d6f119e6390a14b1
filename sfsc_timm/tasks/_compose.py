"""Images that nobody labelled, made from a batch: cut out, turned, pasted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ['compose']

_LONGER = 2.0  # ratio of a pasted box's sides, as shares of the image's, at most


def compose(images: Tensor, count: int) -> Tensor:
    """Pastes a box of one image into another, both drawn at random, turned by right angles and mirrored.

    The box is at the same place in both, its area uniform in [0, 1] of the image's (less where the image ends), its
    sides' ratio up to 2. Images that are not square are turned by 180 degrees only. What is shown is of no identity:
    it is to tell a small network what a large one makes of images that it was not trained on.

    Args:
        images: (B, C, H, W), B at least 1.
        count: Images to make, at least 0.

    Returns:
        (count, C, H, W). Draws come from torch's global generator of the CPU.
    """
    first, second = torch.randint(len(images), (2, count)).to(images.device)
    return torch.where(_boxes(images, count), _turned(images[second]), _turned(images[first]))


def _turned(images: Tensor) -> Tensor:
    """Each image as one of the 8 (4 if it is not square) symmetries of its sides shows it."""
    step = 1 if images.shape[2] == images.shape[3] else 2
    turns = torch.randint(4 // step, (len(images),)) * step
    mirrored = torch.rand(len(images)) < 0.5
    found = images.clone()
    for turn in range(0, 4, step):
        for mirror in (False, True):
            chosen = ((turns == turn) & (mirrored == mirror)).to(images.device)
            part = images[chosen]
            found[chosen] = torch.rot90(part.flip(3) if mirror else part, turn, (2, 3))
    return found


def _boxes(images: Tensor, count: int) -> Tensor:
    """Where the second image shows, (count, 1, H, W)."""
    area, longer, top, left = torch.rand(4, count, 1)
    ratio = ((2 * longer - 1) * math.log(_LONGER) / 2).exp()
    spans = []
    for side, share, start in (
        (images.shape[2], area.sqrt() * ratio, top),
        (images.shape[3], area.sqrt() / ratio, left),
    ):
        length = share.clamp(max=1)
        begin = start * (1 - length)
        place = (torch.arange(side) + 0.5) / side
        spans.append((place >= begin) & (place < begin + length))
    rows, columns = spans
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
