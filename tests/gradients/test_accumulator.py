import pytest
import torch

from sfsc_timm.gradients import GradientAccumulator, GradientProjection
from sfsc_timm.slim import PrivateCut, SharedCut, SliceLayout

LAYOUT = SliceLayout([SharedCut(((2, 3), (4, 6))), PrivateCut(((2,), (4,))), SharedCut(((5,), (5,)))])


def random_gradients(seed, width):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in LAYOUT.shapes(width)]


def test_sums_over_micro_batches():
    accumulator = GradientAccumulator(LAYOUT)
    for step in range(3):
        for width in range(2):
            accumulator.add(width, random_gradients(2 * step + width, width))
    for width in range(2):
        batches = [random_gradients(2 * step + width, width) for step in range(3)]
        for kept, *parts in zip(accumulator.gradients[width], *batches, strict=True):
            torch.testing.assert_close(kept, sum(parts))


def test_missing_gradients_may_come_later():
    accumulator = GradientAccumulator(LAYOUT)
    first, second = random_gradients(0, 1), random_gradients(1, 1)
    accumulator.add(1, [first[0].clone(), None, None])
    accumulator.add(1, [second[0], second[1], None])
    assert torch.equal(accumulator.gradients[1][0], first[0] + second[0])
    assert torch.equal(accumulator.gradients[1][1], second[1])
    assert accumulator.gradients[1][2] is None


def test_memory_is_that_of_the_slices():
    accumulator = GradientAccumulator(LAYOUT)
    for step in range(3):
        for width in range(2):
            accumulator.add(width, random_gradients(step, width))
    assert accumulator.numel() == LAYOUT.numel()


def test_gradients_with_their_own_memory_are_not_copied():
    gradients = random_gradients(0, 1)
    accumulator = GradientAccumulator(LAYOUT)
    accumulator.add(1, gradients)
    assert all(kept is given for kept, given in zip(accumulator.gradients[1], gradients, strict=True))


def test_views_of_a_flat_buffer_are_not_copied():
    flat = torch.randn(24 + 4 + 5)
    views = [part.view(shape) for part, shape in zip(flat.split([24, 4, 5]), LAYOUT.shapes(1), strict=True)]
    accumulator = GradientAccumulator(LAYOUT)
    accumulator.add(1, views)
    assert all(kept is given for kept, given in zip(accumulator.gradients[1], views, strict=True))
    assert accumulator.numel() == 33


@pytest.mark.parametrize('kind', ['same tensor', 'expanded', 'view of a larger one'])
def test_gradients_with_shared_memory_are_copied(kind):
    layout = SliceLayout([SharedCut(((4,), (4,))), SharedCut(((4,), (4,)))])
    tensor = torch.arange(4.0)
    pair = {
        'same tensor': [tensor, tensor],
        'expanded': [torch.tensor(2.0).expand(4), torch.ones(4)],
        'view of a larger one': [torch.arange(8.0)[:4], torch.ones(4)],
    }[kind]
    expected = [2 * t for t in pair]
    accumulator = GradientAccumulator(layout)
    accumulator.add(0, pair)
    assert accumulator.numel() == 8
    accumulator.add(0, [t.clone() for t in pair])
    assert all(torch.equal(a, b) for a, b in zip(accumulator.gradients[0], expected, strict=True))


def test_projection_of_what_has_accumulated_at_every_step():
    """`.grad` after each micro-batch equals the projection of the gradients' sums, and clear() starts afresh."""
    out = [torch.zeros(LAYOUT.full_shape(j)) for j in range(3)]
    accumulator = GradientAccumulator(LAYOUT)
    for start in (0, 10):
        sums = [[torch.zeros(shape) for shape in LAYOUT.shapes(width)] for width in range(2)]
        for step in range(start, start + 3):
            for width in range(2):
                gradients = random_gradients(2 * step + width, width)
                sums[width] = [a + b for a, b in zip(sums[width], gradients, strict=True)]
                accumulator.add(width, gradients)
            GradientProjection(LAYOUT).project(accumulator.gradients, out)
            expected = GradientProjection(LAYOUT).project(sums).gradients
            for a, b in zip(out, expected, strict=True):
                torch.testing.assert_close(a, b)
        accumulator.clear()
        assert accumulator.numel() == 0


def test_wrong_number_of_gradients_is_refused():
    with pytest.raises(ValueError, match=r'must hold one gradient \(or None\) for each of 3 parameters, got 1'):
        GradientAccumulator(LAYOUT).add(0, [None])
