"""At the rate that is chosen, strangers are let in; several images of one query are one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfsc_timm.retrieval import Gallery, GalleryInfo, best_of, known_items, mean_of, strangers_scores, threshold_of

SIZE, IMAGES = 16, 5


def people(count: int, seed: int) -> Tensor:
    """Embeddings (count, IMAGES, SIZE)."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, SIZE, generator=random) + 0.4 * torch.randn(count, IMAGES, SIZE, generator=random)


def make(folder: Path, count: int, dtype: str = 'float32') -> Gallery:
    gallery = Gallery.create(folder, GalleryInfo('m', 1.0, SIZE, 'abc', dtype))
    identities = [f'person{i}' for i in range(count) for _ in range(IMAGES)]
    paths = [f'{i}.jpg' for i in range(count * IMAGES)]
    gallery.append(paths, people(count, 0).flatten(0, 1), labels={'identity': identities})
    return gallery


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_the_realised_rate_on_new_people(tmp_path: Path, distance: str) -> None:
    gallery = make(tmp_path, 400)
    items = known_items(gallery.identities, 2000)
    embeddings = gallery.embeddings()[items]
    shown = [str(gallery.identities[i]) for i in items]
    scores = strangers_scores(embeddings, shown, gallery, distance)  # type: ignore[arg-type]
    new = people(1000, 1).flatten(0, 1)
    best = gallery.scan()(new, 1, distance)[0][:, 0]  # type: ignore[arg-type]
    friends = people(400, 0)[:, 0] + 0.1 * torch.randn(400, SIZE, generator=torch.Generator().manual_seed(2))
    for rate in (0.01, 0.05, 0.1):
        threshold = threshold_of(scores, rate)
        realised = float((best > threshold.score).float().mean())
        assert rate / 2 < realised < rate * 2, (rate, realised)
        assert threshold.strangers == 2000
        assert (gallery.scan()(friends, 1, distance)[0] > threshold.score).float().mean() > 0.9  # type: ignore[arg-type]


def test_ones_own_images_do_not_count_nor_those_of_nobody_known(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path, GalleryInfo('m', 1.0, 2, 'abc'))
    values = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.0], [1.0, 0.2]])
    gallery.append(list('abcde'), values, labels={'identity': ['ann', 'ann', 'bob', None, 'distractor']})
    assert known_items(gallery.identities, 10) == [0, 1, 2]
    scores = strangers_scores(values[:3], ['ann', 'ann', 'bob'], gallery)
    wanted = normalize(values, dim=1)
    assert scores.tolist() == pytest.approx(
        [float(wanted[0] @ wanted[4]), float(wanted[1] @ wanted[4]), float(wanted[2] @ wanted[4])]
    )


def test_what_cannot_be_estimated_is_refused(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path, GalleryInfo('m', 1.0, 2, 'abc'))
    gallery.append(['a', 'b'], torch.eye(2))
    with pytest.raises(ValueError, match='no two identities of the gallery are known'):
        known_items(gallery.identities, 10)
    with pytest.raises(ValueError, match='no two identities'):
        known_items(['ann', 'ann', '-1', None], 10)
    with pytest.raises(ValueError, match=r'must be at least 0.01 with 99 known strangers, got 0.005'):
        threshold_of(torch.rand(99), 0.005)
    with pytest.raises(ValueError, match=r'in \(0, 1\)'):
        threshold_of(torch.rand(99), 1)
    assert threshold_of(torch.arange(99.0), 0.01).score == 98
    assert threshold_of(torch.arange(99.0), 0.1).score == 89


@pytest.mark.parametrize('dtype', ['float32', 'int8', 'binary'])
def test_several_images_of_one_query(tmp_path: Path, dtype: str) -> None:
    gallery = make(tmp_path, 50, dtype)
    query = people(50, 0)[3] + 0.5 * torch.randn(IMAGES, SIZE, generator=torch.Generator().manual_seed(3))
    fused = gallery.search(mean_of(query), 5)[0]
    assert {path for path, _ in fused} == {f'{i}.jpg' for i in range(15, 20)}
    scores = (normalize(query, dim=1) @ normalize(gallery.embeddings(), dim=1).T).amax(0)
    best = best_of(gallery.search(query, 7), 7)
    if dtype != 'binary':
        assert [path for path, _ in best] == [f'{i}.jpg' for i in scores.argsort(descending=True)[:7]]
    assert [score for _, score in best] == pytest.approx([float(scores[int(path[:-4])]) for path, _ in best], abs=1e-5)


def test_each_image_counts_as_much() -> None:
    query = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    assert mean_of(query).tolist() == [[0.5, 0.5]]
    assert mean_of(query, 'euclidean').tolist() == [[50.0, 0.5]]
