import math
import types

import pytest
import torch

from sfsc_timm.gradients import GradientProjection
from sfsc_timm.slim import PrivateCut, SharedCut, SliceLayout

# A convolution, a stem of which only the output is sliced, a bias, a classifier that all widths use whole, a packed
# qkv of which only the second half has a slice, per-width normalisation and a scalar.
LAYOUT = SliceLayout(
    [
        SharedCut(((2, 1, 3, 3), (4, 2, 3, 3), (6, 3, 3, 3), (8, 4, 3, 3))),
        SharedCut(((2, 3, 1), (4, 3, 1), (6, 3, 1), (8, 3, 1))),
        SharedCut(((2,), (4,), (6,), (8,))),
        PrivateCut(((2,), (4,), (6,), (8,))),
        SharedCut(((5, 8),) * 4),
        SharedCut(((3, 2, 2), (3, 2, 2), (3, 4, 4), (3, 4, 4))),
        SharedCut(((), (), (), ())),
    ]
)
SCOPES = ['global', 'shell', 'layer']


def random_gradients(layout=LAYOUT, seed=0, dtype=torch.float64, missing=()):
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    # A common part with alternating signs makes many conflicts.
    common = [
        torch.randn(layout.full_shape(j), dtype=dtype, generator=generator) for j in range(len(layout.parameters))
    ]
    for k in range(layout.num_widths):
        width = []
        for j, shape in enumerate(layout.shapes(k)):
            noise = torch.randn(shape, dtype=dtype, generator=generator)
            part = common[j][tuple(slice(0, size) for size in shape)]
            width.append(None if (k, j) in missing else noise + (-1) ** (k + j) * 0.7 * part)
        gradients.append(width)
    return gradients


def clone(gradients):
    return [[None if g is None else g.clone() for g in width] for width in gradients]


def reference(layout, gradients, scope, generator, pcgrad=True):
    """Naive PCGrad on zero-padded vectors, the elements of each decision picked by masks."""
    m, shared = layout.num_widths, [j for j, p in enumerate(layout.parameters) if isinstance(p, SharedCut)]
    rows, shell_of, parameter_of = [[] for _ in range(m)], [], []
    for j in shared:
        full = layout.full_shape(j)
        shells = torch.full(full, m)
        for k in reversed(range(m)):
            box = tuple(slice(0, size) for size in layout.shapes(k)[j])
            shells[box] = k
            padded = torch.zeros(full, dtype=torch.float64)
            if gradients[k][j] is not None:
                padded[box] = gradients[k][j].double()
            rows[k].append(padded.flatten())
        shell_of.append(shells.flatten())
        parameter_of.append(torch.full((math.prod(full),), j))
    vectors = torch.stack([torch.cat(row) for row in rows])
    shell_of, parameter_of = torch.cat(shell_of), torch.cat(parameter_of)
    groups = {'global': torch.zeros_like(shell_of), 'shell': shell_of, 'layer': parameter_of}[scope]
    total = torch.zeros_like(vectors[0])
    for group in groups.unique().tolist():
        mask = groups == group
        active = list(range(group, m)) if scope == 'shell' else list(range(m))
        part = vectors[active][:, mask]
        orders = [torch.randperm(len(active), generator=generator).tolist() for _ in active]
        for i, order in enumerate(orders):
            g = part[i].clone()
            for h in order:
                if pcgrad and h != i and g @ part[h] < 0:
                    g -= (g @ part[h]) / (part[h] @ part[h]) * part[h]
            total[mask] += g
    results, start = {}, 0
    for j in shared:
        size = math.prod(layout.full_shape(j))
        results[j] = total[start : start + size].view(layout.full_shape(j))
        start += size
    return vectors, results


def assert_equal_to_reference(layout, gradients, result, scope, seed, rtol=1e-10, **kwargs):
    _, expected = reference(layout, gradients, scope, torch.Generator().manual_seed(seed), **kwargs)
    for j, value in expected.items():
        if result.gradients[j] is None:
            assert all(width[j] is None for width in gradients)
        else:
            torch.testing.assert_close(result.gradients[j].double(), value, rtol=rtol, atol=rtol)


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('in_place', [True, False])
def test_equals_the_naive_loop_on_padded_vectors(scope, seed, in_place):
    gradients = random_gradients(seed=seed)
    projection = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(seed))
    result = projection.project_(clone(gradients)) if in_place else projection.project(gradients)
    assert result.conflict_rate > 0.0
    assert_equal_to_reference(LAYOUT, gradients, result, scope, seed)


@pytest.mark.parametrize('scope', SCOPES)
def test_equals_the_naive_loop_with_chunks_that_cut_everything(scope, monkeypatch):
    monkeypatch.setattr('sfsc_timm.gradients.gramian._CHUNK', {'cpu': 7})
    gradients = random_gradients()
    projection = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(3))
    assert_equal_to_reference(LAYOUT, gradients, projection.project(gradients), scope, 3)


@pytest.mark.parametrize('scope', SCOPES)
def test_float32_gradients_are_decided_in_float64(scope):
    gradients = random_gradients(dtype=torch.float32)
    projection = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(0))
    result = projection.project(gradients)
    assert result.gradients[0].dtype == torch.float32
    assert_equal_to_reference(LAYOUT, gradients, result, scope, 0, rtol=1e-5)
    exact = [[g.double() for g in width] for width in gradients]
    same = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(0)).project(exact)
    torch.testing.assert_close(result.weights, same.weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize('scope', ['global', 'shell'])
def test_equals_torchjd_on_padded_matrices(scope):
    aggregation = pytest.importorskip('torchjd.aggregation')
    gradients = random_gradients(seed=7)
    projection = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(7))
    result = projection.project(gradients)
    vectors, _ = reference(LAYOUT, gradients, scope, torch.Generator().manual_seed(7))
    shared = [j for j, p in enumerate(LAYOUT.parameters) if isinstance(p, SharedCut)]
    ours = torch.cat([result.gradients[j].flatten() for j in shared])
    used = torch.stack([row != 0 for row in vectors])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if scope == 'global':
            expected = aggregation.PCGrad()(vectors)
        else:
            expected = torch.zeros_like(ours)
            for shell in range(4):
                mask = used[shell] & ~used[:shell].any(0)
                expected[mask] = aggregation.PCGrad()(vectors[shell:, mask])
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('name', ['UPGrad', 'MGDA', 'AlignedMTL', 'DualProj', 'Mean'])
def test_torchjd_weightings_plug_in(scope, name):
    aggregation = pytest.importorskip('torchjd.aggregation')
    if name in ('UPGrad', 'DualProj'):
        pytest.importorskip('quadprog', reason="needs TorchJD's extra quadprog_projector")
    gradients = random_gradients(seed=2)
    result = GradientProjection(LAYOUT, weighting=name, scope=scope).project(gradients)
    weighting = getattr(aggregation, f'{name}Weighting')()
    for gramian, weights in zip(result.gramians, result.weights, strict=True):
        active = gramian.diagonal() != 0
        expected = weighting(gramian[active][:, active])
        torch.testing.assert_close(weights[active], expected.to(weights))


def test_weightings_with_options_plug_in_as_they_are():
    aggregation = pytest.importorskip('torchjd.aggregation')
    gradients = random_gradients()
    weighting = aggregation.MGDAWeighting(max_iters=3)
    for given in (weighting, aggregation.MGDA(max_iters=3)):
        result = GradientProjection(LAYOUT, weighting=given, scope='global').project(gradients)
        torch.testing.assert_close(result.weights[0], weighting(result.gramians[0]))
    # Given a Gramian, this one would take it for the gradients and return something of the right shape.
    with pytest.raises(ValueError, match=r'works on Gramians, got TrimmedMean'):
        GradientProjection(LAYOUT, weighting=aggregation.TrimmedMean(1))


@pytest.mark.parametrize('scope', SCOPES)
def test_sum_is_the_sum_of_the_padded_gradients(scope):
    gradients = random_gradients()
    result = GradientProjection(LAYOUT, weighting='sum', scope=scope).project(gradients)
    assert_equal_to_reference(LAYOUT, gradients, result, scope, 0, pcgrad=False)


@pytest.mark.parametrize('scope', SCOPES)
def test_without_conflicts_the_result_is_the_sum(scope):
    gradients = [[g.abs() for g in width] for width in random_gradients()]
    projected = GradientProjection(LAYOUT, scope=scope).project(gradients)
    summed = GradientProjection(LAYOUT, weighting='sum', scope=scope).project(gradients)
    assert projected.conflict_rate == 0.0
    assert all(torch.equal(a, b) for a, b in zip(projected.gradients, summed.gradients, strict=True))


@pytest.mark.parametrize('scope', SCOPES)
def test_two_widths_end_up_without_conflict(scope):
    layout = SliceLayout([SharedCut(((3, 3), (3, 3)))])
    gradients = random_gradients(layout, seed=1)
    gradients[1][0] = gradients[1][0] - 2 * gradients[0][0]
    total = GradientProjection(layout, scope=scope).project(gradients).gradients[0]
    assert all((total * width[0]).sum() >= -1e-12 for width in gradients)


def test_private_segments_pass_unchanged():
    gradients = random_gradients()
    gradients[1][3] = None
    result = GradientProjection(LAYOUT).project(gradients).gradients[3]
    expected = torch.cat([gradients[0][3], torch.zeros(4, dtype=torch.float64), gradients[2][3], gradients[3][3]])
    assert torch.equal(result, expected)


def test_private_segments_do_not_change_the_decisions():
    gradients = random_gradients()
    other = clone(gradients)
    for width in other:
        width[3] *= 1e6
    first, second = (GradientProjection(LAYOUT, scope='global').project(g) for g in (gradients, other))
    assert torch.equal(first.weights, second.weights)


@pytest.mark.parametrize('in_place', [True, False])
@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize(
    'missing',
    [
        {(0, 0)},
        {(3, 0)},
        {(0, 1), (1, 1), (2, 1)},
        {(k, 4) for k in range(4)},
        {(k, j) for k in (1, 3) for j in range(7)},
    ],
    ids=['smallest', 'largest', 'all but largest', 'all', 'two whole widths'],
)
def test_missing_gradients_count_as_zero(scope, missing, in_place):
    gradients = random_gradients(missing=missing)
    projection = GradientProjection(LAYOUT, scope=scope, generator=torch.Generator().manual_seed(0))
    result = projection.project_(clone(gradients)) if in_place else projection.project(gradients)
    assert_equal_to_reference(LAYOUT, gradients, result, scope, 0)
    for j in range(7):
        assert (result.gradients[j] is None) == all((k, j) in missing for k in range(4))


def test_no_gradient_at_all():
    result = GradientProjection(LAYOUT).project([[None] * 7 for _ in range(4)])
    assert result.gradients == [None] * 7
    assert result.conflict_rate == 0.0
    assert result.norms.tolist() == [0.0] * 4


def test_stale_values_in_out_are_overwritten():
    missing = {(k, 0) for k in range(4)} | {(3, 1)} | {(k, 3) for k in range(4)}
    gradients = random_gradients(missing=missing)
    out = [torch.full(LAYOUT.full_shape(j), math.nan, dtype=torch.float64) for j in range(7)]
    result = GradientProjection(LAYOUT).project(gradients, out)
    assert all(a is b for a, b in zip(result.gradients, out, strict=True))
    assert out[0].eq(0.0).all()
    assert out[3].eq(0.0).all()
    expected = GradientProjection(LAYOUT).project(gradients).gradients
    for j in (1, 2, 4, 5, 6):
        assert torch.equal(out[j], expected[j])


@pytest.mark.parametrize('scope', SCOPES)
def test_in_place_writes_to_the_largest_width_and_out_of_place_to_none(scope):
    gradients = random_gradients()
    kept = clone(gradients)
    outside = GradientProjection(LAYOUT, scope=scope).project(gradients)
    for width, before in zip(gradients, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(width, before, strict=True))
    inside = GradientProjection(LAYOUT, scope=scope).project_(gradients)
    assert all(inside.gradients[j] is gradients[-1][j] for j in (0, 1, 2, 4, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(inside.gradients, outside.gradients, strict=True))


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_tiny_and_huge_float32_gradients(scope, scale):
    gradients = random_gradients(dtype=torch.float32)
    scaled = [[g * scale for g in width] for width in gradients]
    result, plain = (GradientProjection(LAYOUT, scope=scope).project(g) for g in (scaled, gradients))
    assert result.conflict_rate > 0.0
    torch.testing.assert_close(result.weights, plain.weights, rtol=1e-5, atol=1e-6)
    for a, b in zip(result.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(a.double() / scale, b.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('weighting', ['pcgrad', 'sum', 'MGDA'])
@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('bad', [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize('where', [(0, 0), (1, 4), (3, 0), (2, 3)], ids=['smallest', 'head', 'largest', 'private'])
def test_gradients_that_are_not_finite_show_in_the_result(weighting, scope, bad, where):
    if weighting == 'MGDA':
        pytest.importorskip('torchjd')
    gradients = random_gradients(dtype=torch.float32)
    gradients[where[0]][where[1]].view(-1)[-1] = bad
    result = GradientProjection(LAYOUT, weighting=weighting, scope=scope).project(gradients)
    assert not result.gradients[where[1]].isfinite().all()


def test_one_width():
    layout = SliceLayout([SharedCut(((3, 2),)), PrivateCut(((4,),))])
    for scope in SCOPES:
        gradients = random_gradients(layout)
        result = GradientProjection(layout, scope=scope).project(gradients)
        assert all(torch.equal(a, b) for a, b in zip(result.gradients, gradients[0], strict=True))
        assert result.conflict_rate == 0.0


@pytest.mark.parametrize('scope', SCOPES)
def test_widths_that_coincide_have_empty_shells(scope):
    layout = SliceLayout([SharedCut(((2, 2), (2, 2), (4, 4))), SharedCut(((3,), (3,), (6,)))])
    gradients = random_gradients(layout, seed=4)
    projection = GradientProjection(layout, scope=scope, generator=torch.Generator().manual_seed(4))
    result = projection.project(gradients)
    assert_equal_to_reference(layout, gradients, result, scope, 4)
    assert len(result.weights) == {'global': 1, 'shell': 2, 'layer': 2}[scope]


@pytest.mark.parametrize('scope', SCOPES)
def test_opposed_widths_cancel_only_what_they_share(scope):
    layout = SliceLayout([SharedCut(((2,), (4,)))])
    small, big = torch.tensor([1.0, -2.0]), torch.tensor([-1.0, 2.0, 3.0, 4.0])
    result = GradientProjection(layout, scope=scope).project([[small], [big]])
    if scope == 'shell':
        # Inside they oppose each other: both vanish. Outside there is only one.
        torch.testing.assert_close(result.gradients[0], torch.tensor([0.0, 0.0, 3.0, 4.0]))
    else:
        # <s, b> = -5, |s|^2 = 5, |b|^2 = 30: s + b / 6, b + s. The first changes what s does not own.
        torch.testing.assert_close(result.gradients[0], small.new_tensor([5 / 6, -10 / 6, 3.5, 28 / 6]))


def test_statistics_equal_those_of_the_vectors():
    gradients = random_gradients(seed=3)
    vectors, _ = reference(LAYOUT, gradients, 'global', torch.Generator())
    for scope in SCOPES:
        result = GradientProjection(LAYOUT, scope=scope).project(gradients)
        torch.testing.assert_close(result.norms, vectors.norm(dim=1))
        torch.testing.assert_close(result.shells.sum(0), vectors @ vectors.T)
        for i in range(4):
            for j in range(i + 1):
                common = (vectors[j] != 0) & (vectors[i] != 0)
                a, b = vectors[i, common], vectors[j, common]
                assert result.cosines[i, j].item() == pytest.approx((a @ b / a.norm() / b.norm()).item())
                assert result.cosines[j, i] == result.cosines[i, j]
    rate = GradientProjection(LAYOUT, scope='global').project(gradients).conflict_rate
    negative = [(vectors[i] @ vectors[j] < 0).item() for i in range(4) for j in range(i)]
    assert rate == pytest.approx(sum(negative) / 6)


def test_conflicts_are_counted_among_the_widths_of_a_shell():
    layout = SliceLayout([SharedCut(((1,), (2,), (3,)))])
    gradients = [[torch.tensor([1.0])], [torch.tensor([-1.0, 1.0])], [torch.tensor([1.0, 1.0, 1.0])]]
    # Shell 0: pairs 01 and 12 conflict, 02 does not; shell 1: 12 does not; shell 2 has no pair.
    assert GradientProjection(layout, scope='shell').project(gradients).conflict_rate == pytest.approx(2 / 4)


def test_ranks_with_the_same_seed_agree_bit_by_bit():
    gradients = random_gradients(dtype=torch.float32)
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        projection = GradientProjection(LAYOUT, generator=torch.Generator().manual_seed(9))
        results.append([projection.project(gradients).gradients for _ in range(5)])
    for first, second in zip(*results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_state_resumes_the_random_orders():
    gradients = random_gradients()
    projection = GradientProjection(LAYOUT)
    projection.project(gradients)
    state = projection.state_dict()
    expected = [projection.project(gradients).weights for _ in range(3)]
    resumed = GradientProjection(LAYOUT, generator=torch.Generator().manual_seed(123))
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed.project(gradients).weights, weights) for weights in expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_a_weight_that_the_type_cannot_hold_does_no_harm(dtype):
    layout = SliceLayout([SharedCut(((2,), (2,)))])
    dust, big = (1e-6, 1e4) if dtype == torch.float16 else (1e-35, 1e35)
    gradients = [[torch.tensor([-dust, dust], dtype=dtype)], [torch.tensor([big, big / 2], dtype=dtype)]]
    result = GradientProjection(layout).project(gradients)
    assert result.weights[0, 0] > torch.finfo(dtype).max
    assert result.gradients[0].isfinite().all()


def test_where_gradients_lie_in_memory_changes_no_bit():
    gradients = random_gradients(dtype=torch.float32)
    moved = [[torch.empty(g.numel() + 3)[3:].view(g.shape).copy_(g) for g in width] for width in gradients]
    first, second = (GradientProjection(LAYOUT).project(g) for g in (gradients, moved))
    assert torch.equal(first.gramians, second.gramians)
    assert all(torch.equal(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))


def test_gradients_in_any_memory_format():
    gradients = random_gradients()
    strided = clone(gradients)
    for width in strided:
        width[0] = width[0].to(memory_format=torch.channels_last)
    expected = GradientProjection(LAYOUT).project(gradients).gradients
    result = GradientProjection(LAYOUT).project_(strided).gradients
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match='scope'):
        GradientProjection(LAYOUT, scope='block')
    for weighting in ('nonsense', None):
        with pytest.raises(ValueError, match='weighting'):
            GradientProjection(LAYOUT, weighting=weighting)
    generator = types.SimpleNamespace(device=torch.device('cuda'))
    with pytest.raises(ValueError, match=r'generator must be on the CPU, got cuda'):
        GradientProjection(LAYOUT, generator=generator)
    gradients = random_gradients()
    with pytest.raises(ValueError, match='for each of 4 widths'):
        GradientProjection(LAYOUT).project(gradients[:3])
    gradients[1][2] = torch.zeros(8, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'gradients\[1\]\[2\].*\(4,\).*\(8,\)'):
        GradientProjection(LAYOUT).project(gradients)
