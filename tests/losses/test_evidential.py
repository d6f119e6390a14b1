import functools
import math

import mpmath
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch.distributions import Dirichlet, kl_divergence

from sfsc_timm.losses import EVIDENCES, EvidentialLoss, kl_annealing

EVIDENCE = {'softplus': F.softplus, 'exp': torch.exp, 'relu': F.relu}


def random_batch(batch=6, classes=5, scale=2.0, soft=False, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, classes, dtype=dtype, generator=generator)
    if soft:
        return logits, torch.rand(batch, classes, dtype=dtype, generator=generator).mul(3).softmax(1)
    return logits, torch.randint(classes, (batch,), generator=generator)


def dense(target, classes):
    return target if target.is_floating_point() else F.one_hot(target, classes).double()


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('evidence', EVIDENCES)
def test_loss_is_the_integral_over_the_dirichlet(evidence, soft):
    """The slide's integral, by 200,000 samples of p ~ Dir(alpha)."""
    logits, target = random_batch(soft=soft)
    torch.manual_seed(0)
    p = Dirichlet(EVIDENCE[evidence](logits) + 1).sample((200_000,))
    risks = -(dense(target, 5) * p.log()).sum(-1)
    expected, error = risks.mean(0), risks.std(0) / math.sqrt(len(risks))
    losses = EvidentialLoss(evidence, reduction='none')(logits, target)
    assert ((losses - expected).abs() < 5 * error).all()
    assert (error < 0.01).all()


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('evidence', EVIDENCES)
def test_loss_and_uncertainty_equal_the_closed_form(evidence, soft):
    logits, target = random_batch(soft=soft)
    losses, uncertainty = EvidentialLoss(evidence, reduction='none').with_uncertainty(logits, target)
    alpha = EVIDENCE[evidence](logits) + 1
    strength = alpha.sum(1)
    expected = (dense(target, 5) * (torch.digamma(strength)[:, None] - torch.digamma(alpha))).sum(1)
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(uncertainty, 5 / strength, rtol=1e-10, atol=0)


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('evidence', EVIDENCES)
def test_regulariser_equals_torchs_divergence(evidence, soft):
    logits, target = random_batch(soft=soft, scale=3.0)
    plain = EvidentialLoss(evidence, reduction='none')(logits, target)
    regularised = EvidentialLoss(evidence, kl_weight=0.5, reduction='none')(logits, target, kl_scale=0.3)
    # Of the target's evidence only the share that is not its own remains.
    alpha = 1 + EVIDENCE[evidence](logits) * (1 - dense(target, 5))
    expected = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    torch.testing.assert_close((regularised - plain) / 0.15, expected, rtol=1e-9, atol=1e-9)


def test_regulariser_of_no_evidence_is_zero():
    for classes in (2, 1000, 100_000):
        logits = torch.full((2, classes), -1e4, dtype=torch.float64)
        target = torch.tensor([0, 1])
        plain = EvidentialLoss('softplus')(logits, target)
        loss = EvidentialLoss('softplus', kl_weight=1.0)(logits, target) - plain
        assert abs(loss.item()) < 1e-8


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('kl_weight', [0.0, 0.7])
@pytest.mark.parametrize('evidence', EVIDENCES)
def test_gradcheck(evidence, kl_weight, soft):
    for scale in (2.0, 30.0):
        logits, target = random_batch(scale=scale, soft=soft)
        criterion = EvidentialLoss(evidence, kl_weight=kl_weight, reduction='none')
        assert torch.autograd.gradcheck(lambda z: criterion(z, target), logits.requires_grad_())  # noqa: B023


def stirling(function, x):
    """log Gamma, psi or psi' at any size; mpmath's own are slow or give up at 1e4343."""
    if x < mpmath.mpf(10) ** 30:
        with mpmath.workdps(120):
            return {'loggamma': mpmath.loggamma, 'digamma': mpmath.digamma, 'trigamma': lambda v: mpmath.psi(1, v)}[
                function
            ](x)
    if function == 'loggamma':
        series = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
        return (x - mpmath.mpf(1) / 2) * mpmath.log(x) - x + mpmath.log(2 * mpmath.pi) / 2 + series
    if function == 'digamma':
        return mpmath.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4)
    return 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5)


@functools.cache
def exact(logits, target, evidence, kl_weight):
    """Loss and gradient of one sample, with 60 digits beyond those that cancel in the divergence of exp(1e4)."""
    digits = 120 + (max(0, int(max(logits) / math.log(10))) if evidence == 'exp' else 0)
    with mpmath.workdps(digits):
        z, y = [mpmath.mpf(v) for v in logits], [mpmath.mpf(v) for v in target]
        e, slope = {
            'softplus': ([mpmath.log1p(mpmath.exp(v)) for v in z], [1 / (1 + mpmath.exp(-v)) for v in z]),
            'exp': ([mpmath.exp(v) for v in z], [mpmath.exp(v) for v in z]),
            'relu': ([max(v, mpmath.mpf(0)) for v in z], [mpmath.mpf(v > 0) for v in z]),
        }[evidence]
        alpha, classes, weight = [1 + v for v in e], len(z), sum(y)
        strength = sum(alpha)
        loss = weight * stirling('digamma', strength)
        loss -= sum(w * stirling('digamma', v) for w, v in zip(y, alpha, strict=True))
        common = weight * stirling('trigamma', strength)
        grad = [s * (common - w * stirling('trigamma', v)) for s, w, v in zip(slope, y, alpha, strict=True)]
        if kl_weight:
            a = [1 + v * (1 - w) for v, w in zip(e, y, strict=True)]
            total = sum(a)
            divergence = stirling('loggamma', total) - mpmath.loggamma(classes)
            for v in a:
                divergence += (v - 1) * (stirling('digamma', v) - stirling('digamma', total)) - stirling('loggamma', v)
            loss += kl_weight * divergence
            common = (total - classes) * stirling('trigamma', total)
            grad = [
                g + kl_weight * s * (1 - w) * ((v - 1) * stirling('trigamma', v) - common)
                for g, s, w, v in zip(grad, slope, y, a, strict=True)
            ]
        return float(loss), [float(g) for g in grad]


EXTREME = [
    [1e4, -1e4, 0.0],
    [1e4, 1e4, 1e4],
    [-1e4, -1e4, -1e4],
    [-1e4, 1e4, 1e4 - 1],
    [88.0, 90.0, 20.0],
    [39.875, 40.125, 40.0],
    [3.4375, 3.5, 3.46875],
    [2.0**-13, -(2.0**-13), 700.0],
]


@pytest.mark.parametrize('target', [[1.0, 0.0, 0.0], [0.0625, 0.875, 0.0625]])
@pytest.mark.parametrize('kl_weight', [0.0, 0.5])
@pytest.mark.parametrize('evidence', EVIDENCES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_extreme_logits_equal_60_digits(evidence, kl_weight, target, dtype):
    logits = torch.tensor(EXTREME, dtype=dtype, requires_grad=True)
    given = torch.tensor([target] * len(EXTREME), dtype=dtype)
    losses = EvidentialLoss(evidence, kl_weight=kl_weight, reduction='none')(logits, given)
    losses.sum().backward()
    # All of these are exact in float32 too, so that both types share the reference.
    pairs = [exact(tuple(row), tuple(target), evidence, kl_weight) for row in EXTREME]
    expected = torch.tensor([loss for loss, _ in pairs], dtype=torch.float64)
    gradients = torch.tensor([gradient for _, gradient in pairs], dtype=torch.float64)
    tolerance = 3e-6 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(losses.double(), expected, rtol=tolerance, atol=10 * tolerance)
    # log(1 - y) is added to logits of 1e4, whose float32 neighbours are 1e-3 apart.
    rounded = dtype == torch.float32 and evidence == 'exp' and kl_weight > 0.0 and target[0] != 1.0
    atol = 5e-4 if rounded else tolerance
    torch.testing.assert_close(logits.grad.double(), gradients, rtol=10 * tolerance, atol=atol)


@pytest.mark.parametrize('evidence', EVIDENCES)
@pytest.mark.parametrize('classes', [2, 1000, 100_000])
@pytest.mark.parametrize('kl_weight, tolerance', [(0.0, 1e-5), (1e-3, 5e-4)])
@pytest.mark.parametrize('soft', [False, True])
def test_float32_is_close_to_float64_for_any_number_of_classes(evidence, classes, soft, kl_weight, tolerance):
    for scale in (1.0, 1e2, 1e4):
        logits, target = random_batch(3, classes, scale, soft, dtype=torch.float32)
        results = []
        for dtype in (torch.float32, torch.float64):
            z = logits.to(dtype).clamp(-1e4, 1e4).requires_grad_()
            criterion = EvidentialLoss(evidence, kl_weight=kl_weight)
            loss, uncertainty = criterion.with_uncertainty(z, target)
            loss.backward()
            results.append((loss.detach().double(), z.grad.double(), uncertainty.double()))
        (loss, gradient, u), (loss64, gradient64, u64) = results
        torch.testing.assert_close(loss, loss64, rtol=1e-4, atol=1e-4)
        assert (gradient - gradient64).norm() < tolerance * gradient64.norm() + 1e-6
        torch.testing.assert_close(u, u64, rtol=2e-3, atol=1e-30)
        assert ((u >= 0) & (u <= 1)).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('evidence', EVIDENCES)
def test_half_precision_logits_are_computed_in_float32(evidence, dtype):
    logits, target = random_batch(scale=30.0, dtype=torch.float32)
    logits[0] = torch.tensor([1e4, -1e4, 0.0, 1e4, 5.0])
    logits = logits.to(dtype)
    half, full = logits.clone().requires_grad_(), logits.float().requires_grad_()
    criterion = EvidentialLoss(evidence, kl_weight=0.1)
    with torch.autocast('cpu', dtype=dtype):
        loss = criterion(half, target)
    expected = criterion(full, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    assert half.grad.isfinite().all()
    assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize('evidence', EVIDENCES)
def test_under_autocast_with_a_classifier(evidence):
    torch.manual_seed(0)
    features, head, target = torch.randn(4, 8), torch.nn.Linear(8, 6), torch.tensor([0, 5, 2, 2])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = EvidentialLoss(evidence)(head(features), target)
    loss.backward()
    expected = torch.autograd.grad(EvidentialLoss(evidence)(head(features), target), head.weight)[0]
    assert F.cosine_similarity(head.weight.grad.flatten(), expected.flatten(), dim=0) > 0.999


@pytest.mark.parametrize('evidence', EVIDENCES)
def test_indices_equal_one_hot_probabilities(evidence):
    logits, target = random_batch()
    for kl_weight in (0.0, 0.3):
        criterion = EvidentialLoss(evidence, kl_weight=kl_weight)
        torch.testing.assert_close(criterion(logits, target), criterion(logits, dense(target, 5)))


def test_label_smoothing_equals_smoothed_probabilities():
    logits, target = random_batch()
    smoothed = dense(target, 5) * 0.9 + 0.1 / 5
    criterion = EvidentialLoss(label_smoothing=0.1)
    torch.testing.assert_close(criterion(logits, target), EvidentialLoss()(logits, smoothed))
    torch.testing.assert_close(criterion(logits, dense(target, 5)), EvidentialLoss()(logits, smoothed))


def test_reductions():
    logits, target = random_batch()
    losses = EvidentialLoss(reduction='none')(logits, target)
    assert losses.shape == (6,)
    torch.testing.assert_close(EvidentialLoss(reduction='mean')(logits, target), losses.mean())
    torch.testing.assert_close(EvidentialLoss(reduction='sum')(logits, target), losses.sum())


def test_uncertainty_falls_from_one_as_evidence_grows():
    logits = torch.tensor([[-1e4, -1e4], [0.0, 0.0], [5.0, 0.0], [1e4, 0.0]])
    for evidence in EVIDENCES:
        _, uncertainty = EvidentialLoss(evidence).with_uncertainty(logits, torch.zeros(4, dtype=torch.long))
        assert uncertainty[0] == 1.0
        assert (uncertainty.diff()[1:] < 0).all()
        assert uncertainty[3] < 2.1e-4


def test_uncertainty_carries_no_gradient():
    logits, target = random_batch()
    loss, uncertainty = EvidentialLoss().with_uncertainty(logits.requires_grad_(), target)
    assert loss.requires_grad
    assert not uncertainty.requires_grad


def test_minimum_is_reached_by_descent():
    """A loss whose sign is wrong anywhere would not classify these."""
    for evidence in EVIDENCES:
        logits = torch.full((4, 3), 0.1, requires_grad=True)
        target = torch.tensor([0, 1, 2, 1])
        optimizer = torch.optim.Adam([logits], lr=0.3)
        for _ in range(50):
            optimizer.zero_grad()
            EvidentialLoss(evidence, kl_weight=0.01)(logits, target).backward()
            optimizer.step()
        assert torch.equal(logits.argmax(1), target)


def test_compiles_to_one_graph_for_all_steps_of_the_annealing():
    counter = torch._dynamo.testing.CompileCounterWithBackend('aot_eager')
    criterion = EvidentialLoss('exp', kl_weight=0.1)
    torch._dynamo.reset()
    compiled = torch.compile(criterion.with_uncertainty, backend=counter, fullgraph=True)
    for step in range(4):
        logits, target = random_batch(seed=step)
        scale = torch.tensor(kl_annealing(step, 3))
        loss, uncertainty = compiled(logits, target, scale)
        expected, expected_uncertainty = criterion.with_uncertainty(logits, target, scale)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(uncertainty, expected_uncertainty)
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_annealing_rises_to_one():
    assert [kl_annealing(step, 4) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    for step, steps in ((-1, 4), (0, 0)):
        with pytest.raises(ValueError, match='step and steps must be'):
            kl_annealing(step, steps)
