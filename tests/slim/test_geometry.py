"""Geometry of one stored tensor."""

from __future__ import annotations

import pytest
import torch

from sfsc_timm.slim import PrivateCut, SharedCut


def test_a_shared_slice_is_the_leading_corner() -> None:
    cut = SharedCut(((2, 1, 3, 3), (4, 3, 3, 3), (8, 6, 3, 3)), parts=(1, 1, 1, 1))
    full = torch.randn(cut.full_shape)
    assert torch.equal(cut.view(full, 0), full[:2, :1])
    assert torch.equal(cut.view(full, 1), full[:4, :3])
    assert cut.view(full, 2) is full
    assert [cut.is_whole(k) for k in range(3)] == [False, False, True]
    assert cut.store(full) is full
    assert cut.view(full, 0).data_ptr() == full.data_ptr()


def test_packed_parts_are_sliced_one_by_one() -> None:
    cut = SharedCut(((6, 4), (12, 8)), parts=(3, 1))
    full = torch.randn(12, 8, requires_grad=True)
    query, key, value = full.split(4)
    expected = torch.cat([query[:2, :4], key[:2, :4], value[:2, :4]])
    assert torch.equal(cut.view(full, 0), expected)
    cut.view(full, 0).sum().backward()
    mask = torch.zeros(3, 4, 8)
    mask[:, :2, :4] = 1
    assert full.grad is not None
    assert torch.equal(full.grad, mask.view(12, 8))


def test_a_scalar_is_always_whole() -> None:
    cut = SharedCut(((), ()), parts=())
    tensor = torch.tensor(3.0)
    assert cut.view(tensor, 0) is tensor


@pytest.mark.parametrize('shapes', [((4,), (3,)), ((2, 5), (4, 4)), ((2,), (2, 2))], ids=str)
def test_shared_slices_must_be_nested(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match='shapes must grow with the width in every dimension, got'):
        SharedCut(shapes, parts=(1,) * len(shapes[-1]))


def test_private_segments_lie_side_by_side() -> None:
    cut = PrivateCut(((2,), (3,), (5,)))
    assert cut.full_shape == (10,)
    full = torch.arange(5.0)
    stored = cut.store(full)
    assert stored.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3, 4]
    parts = [cut.view(stored, k) for k in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1], [0, 1, 2], [0, 1, 2, 3, 4]]
    parts[1].fill_(9)
    assert stored.tolist() == [0, 1, 9, 9, 9, 0, 1, 2, 3, 4]
    assert not any(cut.is_whole(k) for k in range(3))


def test_private_counters_and_matrices() -> None:
    counter = PrivateCut(((), (), ()))
    stored = counter.store(torch.tensor(7))
    assert stored.tolist() == [7, 7, 7]
    assert counter.view(stored, 1).shape == ()
    counter.view(stored, 1).add_(1)
    assert stored.tolist() == [7, 8, 7]
    matrix = PrivateCut(((1, 2), (2, 3)))
    full = torch.arange(6).view(2, 3)
    assert matrix.view(matrix.store(full), 0).tolist() == [[0, 1]]
    assert matrix.view(matrix.store(full), 1).tolist() == full.tolist()


def test_one_width_owns_everything() -> None:
    cut = PrivateCut(((4,),))
    tensor = torch.randn(4)
    assert torch.equal(cut.store(tensor), tensor)
    assert cut.is_whole(0)
