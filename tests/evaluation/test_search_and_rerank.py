"""Exact search against a sort, and k-reciprocal re-ranking against the paper's formulas spelled out with sets."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from helpers.retrieval_reference import clustered, naive_metrics, scores_of, taking_part

from sfsc_timm.evaluation import GroundTruth, KReciprocal, compatibility_matrix, retrieval_metrics
from sfsc_timm.evaluation import rerank as rerank_module
from sfsc_timm.evaluation.rerank import rerank_blocks
from sfsc_timm.retrieval import search

search_module = import_module('sfsc_timm.retrieval.search')  # the function hides it in the package


def sets(seed, num_query=15, num_gallery=90, dim=6, noise=0.9):
    g = torch.Generator().manual_seed(seed)
    query_ids, gallery_ids = torch.arange(num_query) % 9, torch.arange(num_gallery) % 11
    cameras = torch.randint(0, 3, (num_query,), generator=g), torch.randint(0, 3, (num_gallery,), generator=g)
    labels = {
        'query_ids': query_ids,
        'gallery_ids': gallery_ids,
        'query_cameras': cameras[0],
        'gallery_cameras': cameras[1],
    }
    return clustered(g, query_ids, dim, noise), clustered(g, gallery_ids, dim, noise), labels


def naive_rerank(query, gallery, distance, k1, k2, weight):
    """Final distances (Nq, Ng), by Zhong et al.'s equations with Python sets in float64."""
    points = torch.cat([query, gallery]).double().numpy()
    if distance == 'cosine':
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    size = len(points)
    d = ((points[:, None] - points[None]) ** 2).sum(2)
    d = d / d.max(1, keepdims=True)
    order = np.argsort(d, axis=1)

    def nearest(p, k):
        return {int(i) for i in order[p, : k + 1]}

    def reciprocal(p, k):
        return {i for i in nearest(p, k) if p in nearest(i, k)}

    encoding = np.zeros((size, size))
    for p in range(size):
        own = reciprocal(p, k1)
        expanded = set(own)
        for q in own:
            other = reciprocal(q, round(k1 / 2))
            if len(own & other) >= 2 / 3 * len(other) - 1e-9:
                expanded |= other
        members = sorted(expanded)
        encoding[p, members] = np.exp(-d[p, members])
        encoding[p] /= encoding[p].sum()
    encoding = np.stack([encoding[order[p, :k2]].mean(0) for p in range(size)])
    final = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            a, b = encoding[i], encoding[len(query) + j]
            jaccard = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()
            final[i, j] = (1 - weight) * jaccard + weight * d[i, len(query) + j]
    return final


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
@pytest.mark.parametrize('num_gallery, tile', [(50, 64), (1000, 256), (5003, 1 << 16)])
@pytest.mark.parametrize('k', [1, 7, 50])
def test_search_equals_a_sort(distance, num_gallery, tile, k, monkeypatch):
    monkeypatch.setattr(search_module, '_TILE', tile)
    g = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(20, 12, generator=g), torch.randn(num_gallery, 12, generator=g)
    scores, items = search(query, gallery, k, distance=distance, block_size=8)
    expected = torch.from_numpy(scores_of(query, gallery, distance)).sort(dim=1, descending=True)
    assert torch.equal(items, expected.indices[:, :k])
    torch.testing.assert_close(scores.double(), expected.values[:, :k], rtol=0, atol=1e-5)


def test_search_orders_ties_by_index():
    gallery = torch.eye(2)[[0, 1, 0, 1, 0]]
    scores, items = search(torch.eye(2), gallery, 5)
    assert items.tolist() == [[0, 2, 4, 1, 3], [1, 3, 0, 2, 4]]
    assert scores.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


@pytest.mark.parametrize('tile', [16, 1 << 16])
def test_search_passes_over_junk(tile, monkeypatch):
    monkeypatch.setattr(search_module, '_TILE', tile)
    query, gallery, labels = sets(0)
    _, items = search(query, gallery, 20, truth=GroundTruth(**labels))
    scores = scores_of(query, gallery, 'cosine')
    for i in range(len(query)):
        kept, _ = taking_part(i, **labels)
        assert items[i].tolist() == [kept[j] for j in np.argsort(-scores[i, kept])[:20]]


def test_search_without_enough_items_left_ends_in_minus_infinity():
    x = torch.randn(3, 4)
    scores, items = search(x, x, 3, truth=GroundTruth.self_retrieval([0, 0, 0]))
    assert (scores[:, 2] == -torch.inf).all()
    assert all(i not in items[i, :2].tolist() for i in range(3))


@pytest.mark.parametrize(
    'change, match',
    [
        (lambda q, g: (q, g, 0), 'k must be between 1 and the size of the gallery, 90; got 0'),
        (lambda q, g: (q, g, 91), 'got 91'),
        (lambda q, g: (q[:, :3], g, 1), 'query embeddings have 3 numbers but gallery embeddings 6'),
        (lambda q, g: (q, g / 0, 1), 'gallery embeddings contain NaN'),
        (lambda q, g: (q[:0], g, 1), 'query embeddings have 0 rows'),
    ],
)
def test_search_refuses_bad_input(change, match):
    query, gallery, _ = sets(0)
    with pytest.raises(ValueError, match=match):
        search(*change(query, gallery))


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
@pytest.mark.parametrize('k1, k2, weight', [(20, 6, 0.3), (7, 3, 0.0), (5, 1, 0.5), (6, 6, 1.0)])
def test_rerank_equals_the_formulas(distance, k1, k2, weight, monkeypatch):
    monkeypatch.setattr(rerank_module, '_STEP', 17)
    query, gallery, _ = sets(1)
    expected = naive_rerank(query, gallery, distance, k1, k2, weight)
    for block_size in (4, None):
        blocks = rerank_blocks(query, gallery, torch.arange(15), KReciprocal(k1, k2, weight), distance, block_size)
        indices, scores = (torch.cat(part) for part in zip(*((i, s.clone()) for i, s in blocks), strict=True))
        assert indices.tolist() == list(range(15))
        np.testing.assert_allclose(-scores[:, :90].numpy(), expected, atol=2e-5)
        assert (scores[:, 90:] == -torch.inf).all()


def test_rerank_by_the_original_distance_alone_changes_nothing():
    query, gallery, labels = sets(2)
    truth = GroundTruth(**labels)
    plain, same = (
        retrieval_metrics(query, gallery, truth),
        retrieval_metrics(query, gallery, truth, rerank=KReciprocal(k1=5, k2=2, weight=1.0)),
    )
    assert same.mAP == pytest.approx(plain.mAP, abs=1e-4)
    assert same.cmc == plain.cmc


def test_rerank_improves_a_clustered_gallery():
    query, gallery, labels = sets(3, num_gallery=220, noise=0.8)
    truth = GroundTruth(**labels)
    plain = compatibility_matrix({1.0: query}, {1.0: gallery}, truth)
    reranked = compatibility_matrix({1.0: query}, {1.0: gallery}, truth, rerank=KReciprocal())
    expected = naive_metrics(-naive_rerank(query, gallery, 'cosine', 20, 6, 0.3), labels)
    assert reranked.mAP[0, 0] == pytest.approx(expected['mAP'], abs=0.01)
    assert reranked.mAP[0, 0] > plain.mAP[0, 0] + 1
    assert reranked.info['rerank'] == {'k1': 20, 'k2': 6, 'weight': 0.3}
    assert plain.info['rerank'] is None


def test_rerank_refuses_bad_input():
    query, gallery, labels = sets(0)
    with pytest.raises(ValueError, match=r'k2 must be between 1 and k1 \+ 1 = 4, got 5'):
        KReciprocal(k1=3, k2=5)
    with pytest.raises(ValueError, match=r'weight must be in \[0, 1\], got 1.5'):
        KReciprocal(weight=1.5)
    with pytest.raises(ValueError, match='k1 must be below the number of queries and gallery items, 105; got 105'):
        retrieval_metrics(query, gallery, GroundTruth(**labels), rerank=KReciprocal(k1=105))
    with pytest.raises(ValueError, match='rerank needs a gallery apart from the queries'):
        retrieval_metrics(gallery, gallery, GroundTruth.self_retrieval(labels['gallery_ids']), rerank=KReciprocal())
