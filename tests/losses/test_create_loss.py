import math

import pytest
import torch
import torch.nn.functional as F

from sfsc_timm.losses import CrossEntropyLoss, EvidentialLoss, SubModelLoss, create_loss, list_losses


@pytest.mark.parametrize('name', list_losses())
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_loss_has_the_same_interface(name, dtype):
    torch.manual_seed(0)
    criterion = create_loss(name, label_smoothing=0.1, reduction='none')
    assert isinstance(criterion, SubModelLoss)
    logits = torch.randn(4, 7, dtype=dtype, requires_grad=True)
    for target in (torch.randint(7, (4,)), torch.rand(4, 7).softmax(1)):
        loss, uncertainty = criterion.with_uncertainty(logits, target, kl_scale=0.5)
        assert loss.shape == uncertainty.shape == (4,)
        assert loss.dtype == uncertainty.dtype == torch.float32
        assert ((uncertainty >= 0) & (uncertainty <= 1)).all()
        assert torch.equal(criterion(logits, target, kl_scale=0.5), loss)
        assert loss.requires_grad
        assert not uncertainty.requires_grad


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_cross_entropy_equals_torchs(smoothing, reduction):
    torch.manual_seed(0)
    logits = torch.randn(5, 4)
    for target in (torch.randint(4, (5,)), torch.rand(5, 4).softmax(1)):
        expected = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction=reduction)
        torch.testing.assert_close(CrossEntropyLoss(smoothing, reduction)(logits, target), expected)


def test_uncertainty_of_the_cross_entropy_is_the_normalised_entropy():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, -1e4], [0.0, 0.0, -1e4, -1e4]])
    _, uncertainty = CrossEntropyLoss().with_uncertainty(logits, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(uncertainty, torch.tensor([1.0, 0.0, math.log(2) / math.log(4)]))


def test_options_arrive():
    criterion = create_loss('evidential', evidence='exp', kl_weight=0.1, label_smoothing=0.2, reduction='sum')
    assert isinstance(criterion, EvidentialLoss)
    assert (criterion.evidence, criterion.kl_weight) == ('exp', 0.1)
    assert repr(criterion) == "EvidentialLoss(evidence='exp', kl_weight=0.1, label_smoothing=0.2, reduction='sum')"


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('nonsense', {}, "one of .*cross_entropy.*evidential.*'nonsense'"),
        (
            'cross_entropy',
            {'evidence': 'exp'},
            "has no option 'evidence'; its options are: label_smoothing, reduction",
        ),
        ('evidential', {'evidence': 'sigmoid'}, "evidence must be one of .*'sigmoid'"),
        ('evidential', {'kl_weight': -1.0}, 'kl_weight must be.*-1.0'),
        ('evidential', {'kl_weight': math.nan}, 'kl_weight must be.*nan'),
        ('evidential', {'reduction': 'max'}, "reduction must be.*'max'"),
        ('cross_entropy', {'label_smoothing': 1.0}, 'label_smoothing must be.*1.0'),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_loss(name, **options)


@pytest.mark.parametrize('name', list_losses())
def test_wrong_shapes_are_refused(name):
    criterion = create_loss(name)
    with pytest.raises(ValueError, match=r'logits must have.*\(3,\)'):
        criterion(torch.zeros(3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r'logits must have.*\(3, 1\)'):
        criterion(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    for target in (
        torch.zeros(2, dtype=torch.long),
        torch.zeros(3, 4, dtype=torch.long),
        torch.zeros(3),
        torch.zeros(3, 5),
    ):
        with pytest.raises(ValueError, match='target must hold'):
            criterion(torch.zeros(3, 4), target)
