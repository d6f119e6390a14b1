import itertools
import math
import random

import pytest

from sfsc_timm.slim import PrivateCut, SharedCut, SliceLayout

BOXES = [
    ((4, 2), (8, 4), (12, 6), (16, 8)),
    ((4, 3, 3, 3), (8, 3, 3, 3)),
    ((10, 2), (10, 4), (10, 8)),
    ((5,), (5,), (5,)),
    ((2, 2), (2, 2), (4, 2), (4, 2)),
    ((), ()),
    ((3, 1, 2), (3, 2, 4)),
    ((7, 7),),
    ((0, 2), (4, 2)),
]


def elements(rectangle):
    return itertools.product(*(range(s.start, s.stop) for s in rectangle.index))


def random_boxes(rng):
    dims = rng.randint(1, 4)
    boxes = [tuple(rng.randint(1, 3) for _ in range(dims))]
    for _ in range(rng.randint(0, 4)):
        boxes.append(tuple(size + rng.randint(0, 2) for size in boxes[-1]))
    return tuple(boxes)


@pytest.mark.parametrize('boxes', BOXES + [random_boxes(random.Random(seed)) for seed in range(20)])
def test_every_element_is_in_one_rectangle_of_its_own_shell(boxes):
    rectangles = SliceLayout([SharedCut(boxes)]).rectangles
    found = [(position, r.shell) for r in rectangles for position in elements(r)]
    expected = []
    for position in itertools.product(*(range(size) for size in boxes[-1])):
        inside = [all(p < size for p, size in zip(position, box, strict=True)) for box in boxes]
        expected.append((position, inside.index(True)))
    assert sorted(found) == sorted(expected)
    assert all(r.shape == tuple(s.stop - s.start for s in r.index) for r in rectangles)


def test_two_sliced_dimensions_give_two_rectangles():
    rectangles = SliceLayout([SharedCut(((4, 2, 3, 3), (8, 4, 3, 3)))]).rectangles
    assert [(r.shell, r.shape) for r in rectangles] == [(0, (4, 2, 3, 3)), (1, (4, 4, 3, 3)), (1, (4, 2, 3, 3))]


@pytest.mark.parametrize('limit', [1, 7, 24, 1000])
@pytest.mark.parametrize('boxes', [box for box in BOXES if box[-1]])
def test_rows_cut_a_rectangle_into_disjoint_pieces(boxes, limit):
    for rectangle in SliceLayout([SharedCut(boxes)]).rectangles:
        pieces = list(rectangle.rows(limit))
        assert [p for piece in pieces for p in elements(piece)] == list(elements(rectangle))
        row = math.prod(rectangle.shape[1:])
        assert all(piece.numel <= max(limit, row) for piece in pieces)
        assert {(piece.parameter, piece.shell) for piece in pieces} == {(rectangle.parameter, rectangle.shell)}


def test_sizes():
    layout = SliceLayout([SharedCut(((2, 4), (4, 8))), PrivateCut(((3,), (5,))), SharedCut(((7,), (7,)))])
    assert layout.num_widths == 2
    assert layout.shapes(0) == [(2, 4), (3,), (7,)]
    assert layout.shapes(1) == [(4, 8), (5,), (7,)]
    assert [layout.full_shape(j) for j in range(3)] == [(4, 8), (8,), (7,)]
    assert layout.numel() == (8 + 3 + 7) + (32 + 5 + 7)


def test_four_even_widths_take_1_875_times_the_parameter():
    boxes = tuple((64 * k, 32 * k, 3, 3) for k in (1, 2, 3, 4))
    layout = SliceLayout([SharedCut(boxes)])
    assert layout.numel() == 1.875 * math.prod(boxes[-1])


@pytest.mark.parametrize(
    'boxes', [(), ((4, 4), (8, 2)), ((4,), (4, 4)), ((4, 4), (2, 2))], ids=['none', 'one dim', 'rank', 'descending']
)
def test_boxes_that_are_not_nested_are_refused(boxes):
    with pytest.raises(ValueError, match='shapes must'):
        SharedCut(boxes)


def test_layouts_must_agree_on_the_widths():
    with pytest.raises(ValueError, match='same number of widths'):
        SliceLayout([SharedCut(((1,), (2,))), PrivateCut(((1,), (2,), (3,)))])
    with pytest.raises(ValueError, match='at least one'):
        SliceLayout([])
