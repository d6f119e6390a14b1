import pytest
import torch

from sfsc_timm.gradients import PCGradWeighting, create_weighting, pcgrad_weights, sum_weights


def pcgrad_of_vectors(vectors, permutations):
    """Algorithm 1 of Yu et al. 2020, word for word, on whole vectors."""
    projected = []
    for i, order in enumerate(permutations.tolist()):
        g = vectors[i].clone()
        for j in order:
            if j != i and g @ vectors[j] < 0:
                g = g - (g @ vectors[j]) / (vectors[j] @ vectors[j]) * vectors[j]
        projected.append(g)
    return torch.stack(projected).sum(0)


def random_permutations(m, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(m, generator=generator) for _ in range(m)])


@pytest.mark.parametrize('m', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('seed', range(10))
def test_weights_equal_the_naive_loop(m, seed):
    # Few dimensions, so that many pairs conflict strongly.
    vectors = torch.randn(m, max(2, m - 1), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    permutations = random_permutations(m, seed)
    weights = pcgrad_weights(vectors @ vectors.T, permutations)
    torch.testing.assert_close(weights @ vectors, pcgrad_of_vectors(vectors, permutations), rtol=1e-10, atol=1e-10)
    assert (weights >= 1.0).all()


@pytest.mark.parametrize('m', [2, 4, 7])
@pytest.mark.parametrize('seed', range(5))
def test_weights_equal_torchjd_for_the_same_permutations(m, seed):
    aggregation = pytest.importorskip('torchjd.aggregation')
    vectors = torch.randn(m, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gramian = vectors @ vectors.T
    # TorchJD draws from the global generator, we from an explicit one: the same seed gives the same orders.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = aggregation.PCGradWeighting()(gramian)
    weights = PCGradWeighting(torch.Generator().manual_seed(seed))(gramian)
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-10)


def test_two_gradients_by_hand():
    # g1 = (1, 0), g2 = (-1, 1): g1 - (-1/2) g2 = (.5, .5), g2 - (-1/1) g1 = (0, 1).
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    weights = pcgrad_weights(vectors @ vectors.T, random_permutations(2, 0))
    torch.testing.assert_close(weights, torch.tensor([2.0, 1.5], dtype=torch.float64))
    torch.testing.assert_close(weights @ vectors, torch.tensor([0.5, 1.5], dtype=torch.float64))


@pytest.mark.parametrize('scale', [1e-150, 1.0, 1e150])
@pytest.mark.parametrize(
    'vectors, expected',
    [
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
        ([[0.0, 0.0], [1.0, 2.0]], [1.0, 2.0]),
        ([[1.0, 2.0], [2.0, 4.0]], [3.0, 6.0]),
        ([[1.0, 2.0], [-3.0, -6.0]], [0.0, 0.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]),
    ],
    ids=['both zero', 'one zero', 'parallel', 'opposed', 'orthogonal'],
)
def test_special_pairs_at_any_scale(vectors, expected, scale):
    vectors = torch.tensor(vectors, dtype=torch.float64)
    weights = pcgrad_weights(vectors @ vectors.T * scale**2, random_permutations(2, 0))
    torch.testing.assert_close(weights @ vectors, torch.tensor(expected, dtype=torch.float64))


def test_a_zero_gradient_with_a_rounding_error_divides_by_nothing():
    gramian = torch.tensor([[1.0, -1e-20], [-1e-20, 0.0]], dtype=torch.float64)
    assert pcgrad_weights(gramian, random_permutations(2, 0)).tolist() == [1.0, 1.0]


def test_the_generator_alone_decides_the_orders():
    vectors = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gramian = vectors @ vectors.T
    runs = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        weighting = PCGradWeighting(torch.Generator().manual_seed(5))
        runs.append(torch.stack([weighting(gramian) for _ in range(6)]))
    assert torch.equal(*runs)
    assert len(runs[0].unique(dim=0)) > 1


def test_sum_is_one_for_each():
    assert sum_weights(torch.zeros(3, 3, dtype=torch.float64)).tolist() == [1.0, 1.0, 1.0]


def test_weightings_by_name():
    generator = torch.Generator()
    assert isinstance(create_weighting('pcgrad', generator), PCGradWeighting)
    assert create_weighting('pcgrad', generator).generator is generator
    assert create_weighting('sum', generator) is sum_weights


def test_torchjd_weightings_by_name():
    aggregation = pytest.importorskip('torchjd.aggregation')
    assert isinstance(create_weighting('MGDA', torch.Generator()), aggregation.MGDAWeighting)
    with pytest.raises(ValueError, match=r'MGDA.*got .Nonsense.'):
        create_weighting('Nonsense', torch.Generator())
    assert create_weighting('MGDA', torch.Generator(), max_iters=7).max_iters == 7
    with pytest.raises(ValueError, match='n_byzantine'):
        create_weighting('Krum', torch.Generator())
    with pytest.raises(ValueError, match='no options'):
        create_weighting('pcgrad', torch.Generator(), c=0.5)


def test_torchjd_weightings_that_need_a_solver_say_so(monkeypatch):
    pytest.importorskip('torchjd')
    for module in ('qpsolvers', 'quadprog'):
        monkeypatch.setitem(__import__('sys').modules, module, None)
    with pytest.raises(ValueError, match=r'quadprog_projector'):
        create_weighting('UPGrad', torch.Generator())


def test_without_torchjd_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchjd', None)
    with pytest.raises(ValueError, match=r"pip install 'sfsc-timm\[torchjd\]'"):
        create_weighting('UPGrad', torch.Generator())
