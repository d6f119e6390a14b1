"""Batches of indices, reproducible from (seed, epoch) alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class EpochSampler(Sampler[list[int]], ABC):
    """Draws the batches of one epoch from (seed, epoch), so that a run resumes at any epoch without a state of it.

    Args:
        seed: Seed of all epochs, at least 0.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = _at_least('seed', seed, 0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws."""
        self.epoch = _at_least('epoch', epoch, 0)

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches of an epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]:
        """Yields the batches of the current epoch."""


class ShuffleSampler(EpochSampler):
    """Every index once an epoch, in random order.

    Args:
        size: Number of samples.
        batch_size: Number of samples of a batch.
        seed: Seed of all epochs.
        drop_last: Whether to leave out a last batch that is not full (kept when it is the only one).
    """

    def __init__(self, size: int, batch_size: int, seed: int = 0, *, drop_last: bool = True) -> None:
        super().__init__(seed)
        self.size = _at_least('size', size, 1)
        self.batch_size = _at_least('batch_size', batch_size, 1)
        self.drop_last = drop_last

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        return full if full and (self.drop_last or not rest) else full + 1

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size).tolist()
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


class PKSampler(EpochSampler):
    """Batches of P identities with K images each (Hermans et al., In Defense of the Triplet Loss, 2017, sec. 2).

    Identities come in shuffled rounds, so within a round none repeats; each identity deals its own shuffled images
    and reshuffles when it runs out. An identity with fewer than K images repeats some.

    Args:
        identities: Identity of each sample.
        p: Identities of a batch, at most the number of identities.
        k: Images of an identity in a batch.
        seed: Seed of all epochs.
        batches: Batches of an epoch; by default as many as hold every sample once.
    """

    def __init__(
        self, identities: Sequence[int], p: int = 16, k: int = 4, seed: int = 0, batches: int | None = None
    ) -> None:
        super().__init__(seed)
        labels = np.asarray(identities, dtype=np.int64)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.k = _at_least('k', k, 1)
        self.p = _at_least('p', p, 1)
        if p > len(self.members):
            raise ValueError(f'p must be at most the number of identities, {len(self.members)}, got {p}.')
        self.batches = max(1, len(labels) // (p * k)) if batches is None else _at_least('batches', batches, 1)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        hands: list[list[int]] = [[] for _ in self.members]
        waiting: list[int] = []
        for _ in range(self.batches):
            if len(waiting) < self.p:
                # Those still waiting go first and are not dealt twice into one batch.
                held = set(waiting)
                waiting += [i for i in rng.permutation(len(self.members)).tolist() if i not in held]
            chosen, waiting = waiting[: self.p], waiting[self.p :]
            yield [index for identity in chosen for index in self._deal(identity, hands, rng)]

    def _deal(self, identity: int, hands: list[list[int]], rng: np.random.Generator) -> list[int]:
        cards: list[int] = []
        while len(cards) < self.k:
            if not hands[identity]:
                # Images already in this batch come last, so they repeat only where there is no other.
                shuffled = rng.permutation(self.members[identity]).tolist()
                hands[identity] = sorted(shuffled, key=lambda index: index in cards)
            take = self.k - len(cards)
            cards += hands[identity][:take]
            hands[identity] = hands[identity][take:]
        return cards


class ShardSampler(EpochSampler):
    """One process's part of every batch of another sampler: whole identities, where they divide by the processes.

    Args:
        sampler: Draws the batches of all processes together.
        rank: This process's number.
        world_size: Number of processes.

    Raises:
        ValueError: If rank is out of its range.
    """

    def __init__(self, sampler: EpochSampler, rank: int, world_size: int) -> None:
        super().__init__(sampler.seed)
        if not 0 <= rank < world_size:
            raise ValueError(f'rank must be in [0, {world_size}), got {rank}.')
        self.sampler = sampler
        self.rank = rank
        self.world_size = world_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws."""
        super().set_epoch(epoch)
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.sampler:
            bounds = [len(batch) * part // self.world_size for part in (self.rank, self.rank + 1)]
            yield batch[bounds[0] : bounds[1]]


class StackedSampler(EpochSampler):
    """A batch of each of several samplers in one, one after the other: of as many batches, all of the same size.

    Args:
        samplers: At least one; all with as many batches an epoch.
        alike_from: Epoch from which on the last sampler's batch takes the place of all the others'; None for never.

    Raises:
        ValueError: If there is none, or their epochs differ in length.
    """

    def __init__(self, samplers: Sequence[EpochSampler], alike_from: int | None = None) -> None:
        if len(lengths := {len(sampler) for sampler in samplers}) != 1:
            raise ValueError(f'samplers must have the same number of batches, got {sorted(lengths)}.')
        super().__init__(samplers[0].seed)
        self.samplers = tuple(samplers)
        self.alike_from = alike_from

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws."""
        super().set_epoch(epoch)
        for sampler in self.samplers:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.samplers[0])

    def __iter__(self) -> Iterator[list[int]]:
        if self.alike_from is not None and self.epoch >= self.alike_from:
            yield from (batch * len(self.samplers) for batch in self.samplers[-1])
            return
        for batches in zip(*self.samplers, strict=True):
            yield [index for batch in batches for index in batch]


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f'{name} must be at least {least}, got {value}.')
    return value
