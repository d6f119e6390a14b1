from collections import Counter
from itertools import chain

import numpy as np
import pytest

from sfsc_timm.data import PKSampler, ShardSampler, ShuffleSampler, StackedSampler

IDENTITIES = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).tolist()


def test_shuffle_serves_every_index_once():
    assert sorted(i for batch in ShuffleSampler(10, 3, drop_last=False) for i in batch) == list(range(10))
    assert [len(batch) for batch in ShuffleSampler(10, 3, drop_last=False)] == [3, 3, 3, 1]
    dropped = [i for batch in ShuffleSampler(10, 3) for i in batch]
    assert len(set(dropped)) == len(dropped) == 9


@pytest.mark.parametrize('size,drop_last', [(2, True), (2, False), (9, True), (9, False), (10, True), (10, False)])
def test_shuffle_length_is_the_number_of_batches(size, drop_last):
    sampler = ShuffleSampler(size, 3, drop_last=drop_last)
    assert len(list(sampler)) == len(sampler) > 0


@pytest.mark.parametrize(
    'make',
    [
        lambda seed: ShuffleSampler(55, 4, seed),
        lambda seed: PKSampler(IDENTITIES, 3, 2, seed),
        lambda seed: ShardSampler(ShuffleSampler(55, 4, seed), 1, 2),
        lambda seed: StackedSampler([ShuffleSampler(55, 4, seed), PKSampler(IDENTITIES, 3, 2, seed + 1, 13)]),
    ],
)
def test_batches_depend_on_seed_and_epoch_alone(make):
    sampler = make(5)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert list(make(0)) != first
    resumed = make(5)
    resumed.set_epoch(1)
    assert list(resumed) == second


def test_pk_batches_hold_p_identities_with_k_images():
    for batch in PKSampler(IDENTITIES, p=4, k=3, batches=200):
        counts = Counter(IDENTITIES[i] for i in batch)
        assert len(counts) == 4
        assert set(counts.values()) == {3}
        for identity in counts:
            images = [i for i in batch if IDENTITIES[i] == identity]
            assert len(set(images)) == min(3, IDENTITIES.count(identity))


def test_pk_deals_identities_and_images_evenly():
    batches = list(PKSampler(IDENTITIES, p=5, k=2, batches=100))
    identities = Counter(IDENTITIES[i] for batch in batches for i in batch)
    assert set(identities.values()) == {100}  # 1,000 draws, 10 identities
    images = Counter(i for batch in batches for i in batch)
    for identity in range(10):
        drawn = [n for i, n in images.items() if IDENTITIES[i] == identity]
        assert len(drawn) == IDENTITIES.count(identity)
        assert max(drawn) - min(drawn) <= 2


def test_pk_never_repeats_an_identity_across_rounds():
    # 10 identities do not divide by 4: the third batch takes from two rounds.
    for batch in PKSampler(IDENTITIES, p=4, k=1, batches=300):
        assert len({IDENTITIES[i] for i in batch}) == 4


def test_pk_epoch_holds_as_many_images_as_there_are():
    assert len(PKSampler(IDENTITIES, 3, 2)) == 55 // 6
    assert len(PKSampler([0, 1], 2, 4)) == 1


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: ShuffleSampler(0, 1), 'size must be at least 1, got 0'),
        (lambda: ShuffleSampler(1, 0), 'batch_size must be at least 1, got 0'),
        (lambda: ShuffleSampler(1, 1, seed=-1), 'seed must be at least 0'),
        (lambda: PKSampler(IDENTITIES, p=11), 'p must be at most the number of identities, 10, got 11'),
        (lambda: PKSampler(IDENTITIES, p=2, k=0), 'k must be at least 1'),
        (lambda: PKSampler(IDENTITIES, p=2, batches=0), 'batches must be at least 1'),
        (lambda: ShuffleSampler(1, 1).set_epoch(-1), 'epoch must be at least 0'),
    ],
)
def test_refuses_impossible_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shards_divide_every_batch():
    def sampler():
        return PKSampler(np.arange(100) % 25, p=15, k=2, seed=3)

    parts = []
    for rank in range(3):
        shard = ShardSampler(sampler(), rank, 3)
        shard.set_epoch(4)
        parts.append(list(shard))
    whole = sampler()
    whole.set_epoch(4)
    assert [list(chain(*batch)) for batch in zip(*parts, strict=True)] == list(whole)
    assert {len(batch) for batch in parts[0]} == {10}, 'five whole identities each'
    with pytest.raises(ValueError, match=r'rank must be in \[0, 2\)'):
        ShardSampler(whole, 2, 2)


def test_stacked_batches_are_those_of_each_sampler_one_after_the_other():
    parts = [ShuffleSampler(20, 4, seed) for seed in (3, 4, 5)]
    stacked = StackedSampler(parts)
    stacked.set_epoch(2)
    assert [part.epoch for part in parts] == [2, 2, 2]
    alone = [ShuffleSampler(20, 4, seed) for seed in (3, 4, 5)]
    for sampler in alone:
        sampler.set_epoch(2)
    assert len(stacked) == 5
    assert list(stacked) == [a + b + c for a, b, c in zip(*alone, strict=True)]


def test_stacked_batches_are_alike_from_an_epoch_on():
    parts = [ShuffleSampler(20, 4, seed) for seed in (3, 4, 5)]
    stacked = StackedSampler(parts, alike_from=2)
    for epoch, alike in ((1, False), (2, True), (3, True)):
        stacked.set_epoch(epoch)
        for batch, last in zip(stacked, list(parts[-1]), strict=True):
            assert batch[8:] == last
            assert (batch == last * 3) == alike


def test_stacked_samplers_have_epochs_of_one_length():
    with pytest.raises(ValueError, match=r'same number of batches, got \[5, 10\]'):
        StackedSampler([ShuffleSampler(20, 4), ShuffleSampler(20, 2)])
    with pytest.raises(ValueError, match='samplers'):
        StackedSampler([])
