"""The data interface every reader shares: lists of (image, identity, camera) for training, queries and the gallery."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

_logger = logging.getLogger(__name__)

DISTRACTOR = -1
"""Identity of gallery images that match no query, such as the 0000 images of Market-1501."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its labels.

    Attributes:
        image: A file, or pixels as uint8 of shape (H, W) or (H, W, 3).
        identity: What the image shows, at least 0; `DISTRACTOR` for gallery images that match no query.
        camera: Where it comes from (camera, typeface, vendor), at least 0; 0 where the data set has no cameras.
    """

    image: Path | np.ndarray
    identity: int
    camera: int = 0

    def __post_init__(self) -> None:
        for name in ('identity', 'camera'):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f'{name} must be a whole number, got {getattr(self, name)!r}.')
        if self.identity < DISTRACTOR:
            raise ValueError(f'identity must be at least 0, or {DISTRACTOR} for a distractor, got {self.identity}.')
        if self.camera < 0:
            raise ValueError(f'camera must be at least 0, got {self.camera}; use 0 where there are no cameras.')


@dataclass(frozen=True, eq=False)
class RetrievalData:
    """A retrieval benchmark: learn on some identities, search for others.

    Identities of `train` and of `query` and `gallery` are disjoint, but for `overlap`. Images that a protocol calls
    junk are left out by the reader; distractors stay in `gallery` under the identity `DISTRACTOR` and count as
    non-matches.

    Attributes:
        name: Name of the data set.
        train: Training images with the data set's own identity numbers, see `training` for class labels.
        query: Images to search for.
        gallery: Images to search in.
        cameras: Whether a gallery image of the query's own camera and identity is left out of its ranking
            (Market-1501's protocol).
        shared: Whether query and gallery are one list, in which an image never retrieves itself.
        ks: The ranks k at which Recall@k (rank-k) is usually reported.
        overlap: Whether test identities may be trained on: for final weights, whose figures then say nothing.
    """

    name: str
    train: Sequence[Sample]
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    cameras: bool = True
    shared: bool = False
    ks: tuple[int, ...] = (1, 5, 10)
    overlap: bool = False

    def __post_init__(self) -> None:
        for split in ('train', 'query', 'gallery'):
            object.__setattr__(self, split, tuple(getattr(self, split)))
        if self.shared:
            if [id(s) for s in self.query] != [id(s) for s in self.gallery]:
                raise ValueError(
                    f'{self.name}: shared=True needs the same samples, in the same order, as query and '
                    f'gallery, got {len(self.query)} and {len(self.gallery)}.'
                )
            object.__setattr__(self, 'gallery', self.query)
        if not self.ks or min(self.ks) < 1 or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f'{self.name}: ks must be ascending ranks of at least 1, got {self.ks}.')
        self._check_splits()
        self._check_files()
        self._check_matches()

    def _check_splits(self) -> None:
        for split in ('query', 'gallery'):
            if not getattr(self, split):
                raise ValueError(f'{self.name}: {split} is empty; a benchmark needs images to search for and in.')
        for split in ('train', 'query'):
            if any(s.identity == DISTRACTOR for s in getattr(self, split)):
                raise ValueError(
                    f'{self.name}: {split} holds distractors (identity {DISTRACTOR}); they belong in the gallery.'
                )
        overlap = _identities(self.train) & (_identities(self.query) | _identities(self.gallery))
        if overlap and not self.overlap:
            raise ValueError(
                f'{self.name}: {len(overlap)} identities are both in train and in query or gallery, '
                f'among them {sorted(overlap)[:5]}; training and test identities must be disjoint.'
            )

    def _check_files(self) -> None:
        """Refuses files whose labels contradict each other, and such as would be found by themselves."""
        files = {split: [_file(s) for s in getattr(self, split)] for split in ('train', 'query', 'gallery')}
        for split in () if self.overlap else ('query', 'gallery'):
            for both in sorted(name for name in set(files['train']) & set(files[split]) if name)[:1]:
                raise ValueError(f'{self.name}: {both!r} is both in train and in {split}; train on other images.')
        # The protocol of cameras passes over an image of the query's own.
        camera = {} if self.shared else {f: s.camera for f, s in zip(files['query'], self.query, strict=True) if f}
        for sample, file in zip(self.gallery, files['gallery'], strict=True):
            if file in camera and not (self.cameras and camera[file] == sample.camera):
                way = "give it the split 'test', or leave one out"
                raise ValueError(f'{self.name}: {file!r} is both in query and in gallery; {way}.')
        self._check_twice(files)

    def _check_twice(self, files: dict[str, list[str | None]]) -> None:
        identity: dict[str, int] = {}
        for split, names in files.items():
            for sample, name in zip(getattr(self, split), names, strict=True):
                if name is not None and identity.setdefault(name, sample.identity) != sample.identity:
                    raise ValueError(f'{self.name}: {name!r} has two identities; leave one line out.')
            twice = sorted(name for name, count in Counter(names).items() if name is not None and count > 1)
            if twice and split != 'train':
                raise ValueError(f'{self.name}: {twice[0]!r} is twice in {split}; leave one line out.')
            if twice:
                _logger.warning('%s: %d images are more than once in train: %s, ...', self.name, len(twice), twice[0])
        shown = {s.identity for s in (*self.query, *self.gallery)}
        if len(shown) == 1:
            _logger.warning('%s: query and gallery show one identity alone: any model finds it.', self.name)

    def _check_matches(self) -> None:
        found = defaultdict(list)
        for sample in self.gallery:
            found[sample.identity].append(sample.camera)
        for query in self.query:
            matches = found.get(query.identity, [])
            if self.cameras:
                matches = [camera for camera in matches if camera != query.camera]
            if len(matches) > (self.shared and not self.cameras):
                return
        where = ' from another camera' if self.cameras else ''
        raise ValueError(f'{self.name}: no query has a match in the gallery{where}; check identities and cameras.')

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The identities of `train` in ascending order: class label i stands for `classes[i]`."""
        return tuple(sorted(_identities(self.train)))

    @property
    def num_classes(self) -> int:
        """Number of training identities."""
        return len(self.classes)

    def require_training(self) -> None:
        """Refuses to be trained on where there is nothing to tell apart.

        Raises:
            ValueError: There are no two identities to train on.
        """
        if self.num_classes < 2:
            raise ValueError(f'{self.name}: training needs images of at least 2 identities, got {self.num_classes}.')

    @cached_property
    def training(self) -> tuple[Sample, ...]:
        """`train` with identities relabelled to class labels 0 .. num_classes - 1."""
        label = {identity: i for i, identity in enumerate(self.classes)}
        return tuple(replace(sample, identity=label[sample.identity]) for sample in self.train)

    def summary(self) -> str:
        """Returns a small table: images, identities, cameras and distractors of each split."""
        rows: list[tuple[str, ...]] = [(self.name, 'images', 'identities', 'cameras', 'distractors')]
        for split in ('train', 'query', 'gallery'):
            samples = getattr(self, split)
            cameras = len({s.camera for s in samples}) if self.cameras else '-'
            distractors = sum(s.identity == DISTRACTOR for s in samples)
            rows.append((split, *(str(n) for n in (len(samples), len(_identities(samples)), cameras, distractors))))
        if not any(s.identity == DISTRACTOR for s in self.gallery):
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        if self.shared:
            lines.append('query and gallery are the same images')
        return '\n'.join(lines)


def _file(sample: Sample) -> str | None:
    """The sample's file in one spelling, None for pixels."""
    return os.path.normpath(sample.image) if isinstance(sample.image, str | Path) else None


def _identities(samples: Iterable[Sample]) -> set[int]:
    return {sample.identity for sample in samples} - {DISTRACTOR}
