"""Metrics against naive loops, scikit-learn and pytorch-metric-learning; ties, order, blocks, protocols, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.retrieval_reference import clustered, naive_metrics, scores_of, taking_part
from sklearn.metrics import average_precision_score

from sfsc_timm.evaluation import GroundTruth, KReciprocal, query_statistics, ranking, retrieval_metrics
from sfsc_timm.retrieval import search


def make(seed, num_query=30, num_gallery=120, dim=8, noise=0.7, cameras=True, same_set=False, integers=False):
    """(query, gallery, labels) of a small benchmark with distractors and queries without a match."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 14, (num_gallery,), generator=g)
    ids[ids == 13] = -1  # distractors
    query_ids = ids if same_set else torch.randint(0, 15, (num_query,), generator=g)  # 13 and 14 have no match
    gallery = clustered(g, ids, dim, noise)
    query = gallery if same_set else clustered(g, query_ids, dim, noise)
    if integers:  # exact in float32: ties are plenty and the reference sees the same ones
        query, gallery = query.mul(1.3).round(), gallery.mul(1.3).round()
    labels = {'query_ids': query_ids, 'gallery_ids': ids}
    if cameras:
        camera = torch.randint(0, 3, (num_gallery,), generator=g)
        labels['gallery_cameras'] = camera
        labels['query_cameras'] = camera if same_set else torch.randint(0, 3, (num_query,), generator=g)
    if same_set:
        labels['same_set'] = True
    return query, gallery, labels


def assert_equal_metrics(result, expected, tolerance=1e-4):
    assert result.mAP == pytest.approx(expected['mAP'], abs=tolerance)
    assert result.mINP == pytest.approx(expected['mINP'], abs=tolerance)
    assert result.cmc == pytest.approx(expected['cmc'], abs=tolerance)
    assert (result.num_queries, result.num_skipped) == (expected['num_queries'], expected['num_skipped'])


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
@pytest.mark.parametrize('cameras', [True, False])
@pytest.mark.parametrize('same_set', [True, False])
@pytest.mark.parametrize('seed', range(3))
def test_equals_naive_loops(seed, same_set, cameras, distance):
    query, gallery, labels = make(seed, cameras=cameras, same_set=same_set)
    result = retrieval_metrics(query, gallery, GroundTruth(**labels), distance=distance)
    expected = naive_metrics(scores_of(query, gallery, distance), labels)
    assert 10 < expected['mAP'] < 98  # the case is neither trivial nor hopeless
    assert_equal_metrics(result, expected)


@pytest.mark.parametrize('same_set', [True, False])
@pytest.mark.parametrize('seed', range(3))
def test_ties_equal_naive_loops(seed, same_set):
    query, gallery, labels = make(seed, dim=2, same_set=same_set, integers=True)
    scores = scores_of(query, gallery, 'euclidean')
    assert len(np.unique(scores[0])) < len(scores[0]) / 2
    result = retrieval_metrics(query, gallery, GroundTruth(**labels), distance='euclidean')
    assert_equal_metrics(result, naive_metrics(scores, labels), tolerance=1e-10)


@pytest.mark.parametrize('integers', [False, True], ids=['tie-free', 'ties'])
def test_average_precision_equals_scikit_learn(integers):
    query, gallery, labels = make(5, dim=3, integers=integers)
    scores = scores_of(query, gallery, 'euclidean')
    statistics = query_statistics(query, gallery, GroundTruth(**labels), distance='euclidean')
    for i, ap in zip(statistics.query.tolist(), statistics.average_precision.tolist(), strict=True):
        items, relevant = taking_part(i, **labels)
        # Squared, because the root of float64 could merge or split what float32 integers tell apart exactly.
        assert ap == pytest.approx(average_precision_score(relevant, -(scores[i, items] ** 2).round(5)), abs=1e-6)


def test_mean_average_precision_equals_pytorch_metric_learning():
    accuracy_calculator = pytest.importorskip('pytorch_metric_learning.utils.accuracy_calculator')
    query, gallery, labels = make(2, num_query=100, cameras=False)
    query_ids, gallery_ids = labels['query_ids'], labels['gallery_ids']
    keep = torch.isin(query_ids, gallery_ids)

    def nearest(query, k, reference, includes_query):
        order = torch.cdist(query, reference).sort(1)
        return order.values[:, :k], order.indices[:, :k]

    calculator = accuracy_calculator.AccuracyCalculator(
        include=('mean_average_precision', 'precision_at_1'), k=len(gallery), knn_func=nearest, kmeans_func=object()
    )
    theirs = calculator.get_accuracy(query[keep], query_ids[keep], gallery, gallery_ids, ref_includes_query=False)
    ours = retrieval_metrics(query, gallery, GroundTruth(query_ids, gallery_ids), distance='euclidean')
    assert ours.mAP == pytest.approx(100 * theirs['mean_average_precision'], abs=1e-4)
    assert ours.cmc[1] == pytest.approx(100 * theirs['precision_at_1'], abs=1e-4)


def test_pinned_values():
    # Ranking of the one query: miss, hit, junk (same camera), miss, hit -> precisions 1/2 and 2/4 without the junk.
    query = torch.tensor([[1.0, 0.0]])
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    gallery = torch.stack([angles.cos(), angles.sin()], 1)
    truth = GroundTruth([7], [1, 7, 7, 2, 7], [0], [1, 1, 0, 0, 1])
    result = retrieval_metrics(query, gallery, truth, ks=(1, 2, 5))
    assert result.mAP == pytest.approx(50.0)
    assert result.mINP == pytest.approx(50.0)  # two hits, the last one at rank 4
    assert result.cmc == {1: 0.0, 2: 100.0, 5: 100.0}


@pytest.mark.parametrize('collapsed', [torch.zeros, torch.ones])
def test_collapsed_embeddings_score_chance(collapsed):
    truth = GroundTruth([0, 1], [0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    result = retrieval_metrics(collapsed(2, 4), collapsed(10, 4), truth, ks=(1, 7, 8, 9))
    assert result.mAP == pytest.approx(100 * (0.3 + 0.2) / 2)
    assert result.mINP == pytest.approx(100 * (0.3 + 0.2) / 2)
    assert result.cmc == {1: 0.0, 7: 0.0, 8: 50.0, 9: 100.0}


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
@pytest.mark.parametrize('num_gallery', [120, 97, 1003])
def test_order_of_the_gallery_and_of_the_queries_does_not_matter(num_gallery, distance):
    query, gallery, labels = make(1, num_gallery=num_gallery, dim=33)
    gallery[num_gallery // 2 :] = gallery[: -(-num_gallery // 2)].clone()  # every item twice: ties across identities
    before = retrieval_metrics(query, gallery, GroundTruth(**labels), distance=distance)
    g, q = torch.randperm(len(gallery)), torch.randperm(len(query))
    shuffled = {name: values[g] if name.startswith('gallery') else values[q] for name, values in labels.items()}
    after = retrieval_metrics(query[q], gallery[g], GroundTruth(**shuffled), distance=distance)
    assert after.mAP == pytest.approx(before.mAP, abs=1e-10)
    assert after.mINP == pytest.approx(before.mINP, abs=1e-10)
    assert after.cmc == before.cmc


@pytest.mark.parametrize('block_size', [1, 7, 16, 1000])
@pytest.mark.parametrize('same_set', [True, False])
def test_block_size_does_not_matter(block_size, same_set):
    query, gallery, labels = make(4, num_gallery=101, same_set=same_set)
    truth = GroundTruth(**labels)
    expected = query_statistics(query, gallery, truth)
    result = query_statistics(query, gallery, truth, block_size=block_size)
    assert torch.equal(result.first_rank, expected.first_rank)
    torch.testing.assert_close(result.average_precision, expected.average_precision, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.inverse_negative_penalty, expected.inverse_negative_penalty, rtol=1e-12, atol=0)


def test_many_relevant_items_count_the_same(monkeypatch):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 2, (400,), generator=g)  # about 200 relevant items: beyond the comparisons
    embeddings = clustered(g, ids, 4, 1.5).round()
    truth = GroundTruth.self_retrieval(ids)
    assert int(truth.num_relevant.max()) > ranking._MAX_COMPARISONS
    by_search = query_statistics(embeddings, embeddings, truth, distance='euclidean')
    monkeypatch.setattr(ranking, '_MAX_COMPARISONS', 10_000)
    monkeypatch.setattr(ranking, '_STEP', 30_000)
    by_comparison = query_statistics(embeddings, embeddings, truth, distance='euclidean')
    assert torch.equal(by_search.average_precision, by_comparison.average_precision)
    assert torch.equal(by_search.first_rank, by_comparison.first_rank)
    assert torch.equal(by_search.inverse_negative_penalty, by_comparison.inverse_negative_penalty)


def test_counts_are_exact_for_rows_of_different_length():
    scores = torch.randn(5, 1024, generator=torch.Generator().manual_seed(0)).mul(8).round()
    thresholds = torch.full((5, 4), -torch.inf)
    for row in range(5):
        thresholds[row, :row] = scores[row, :row].sort(descending=True).values
    counts = ranking.count_at_least(scores, thresholds)
    for row in range(5):
        for r in range(row if row < 5 else 4):
            if r < 4:
                assert counts[row, r] == sum(s >= thresholds[row, r] for s in scores[row])


def test_same_camera_matches_and_distractors():
    query, gallery = torch.eye(3)[:1], torch.eye(3)[[0, 0, 1, 2]]
    # The same-camera copy of the query (item 0) must not help, the distractor at distance 0 (item 1) must hurt.
    truth = GroundTruth([4], [4, -1, 4, 5], [0], [0, 0, 1, 1])
    result = retrieval_metrics(query, gallery, truth, ks=(1, 3))
    assert result.mAP == pytest.approx(100 / 3)  # distractor, then item 2 tied with item 3
    assert result.cmc == {1: 0.0, 3: 100.0}


def test_negative_queries_match_nothing():
    truth = GroundTruth([-1, 0], [-1, -1, 0])
    assert truth.evaluated.tolist() == [1]
    assert truth.skipped == 1


def test_queries_without_match_are_left_out_and_counted():
    query, gallery, labels = make(0)
    truth = GroundTruth(**labels)
    gone = [i for i in range(len(query)) if not any(taking_part(i, **labels)[1])]
    assert truth.skipped == len(gone) > 0
    assert set(truth.evaluated.tolist()) == set(range(len(query))) - set(gone)
    assert retrieval_metrics(query, gallery, truth).num_skipped == len(gone)


def test_an_item_never_retrieves_itself_even_across_widths():
    g = torch.Generator().manual_seed(3)
    ids = torch.arange(40) // 2
    small, large = torch.randn(40, 6, generator=g), torch.randn(40, 6, generator=g)
    small[::2] = large[::2]  # query i finds itself at rank 1 unless it is left out
    labels = {'query_ids': ids, 'gallery_ids': ids, 'same_set': True}
    result = retrieval_metrics(small, large, GroundTruth.self_retrieval(ids), ks=(1, 2, 4, 8))
    assert_equal_metrics(result, naive_metrics(scores_of(small, large, 'cosine'), labels, ks=(1, 2, 4, 8)))
    assert result.cmc[1] < 40


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_computed_in_float32(dtype):
    query, gallery, labels = make(0)
    query, gallery = query.to(dtype), gallery.to(dtype)
    result = retrieval_metrics(query, gallery, GroundTruth(**labels))
    assert_equal_metrics(result, naive_metrics(scores_of(query, gallery, 'cosine'), labels), tolerance=0.02)


def test_inputs_are_not_changed():
    query, gallery, labels = make(0)
    copies = query.clone(), gallery.clone()
    retrieval_metrics(query.requires_grad_(), gallery, GroundTruth(**labels))
    assert torch.equal(query, copies[0])
    assert torch.equal(gallery, copies[1])


def test_labels_may_be_lists_arrays_or_tensors():
    query, gallery, labels = make(0)
    expected = retrieval_metrics(query, gallery, GroundTruth(**labels))
    for convert in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int):
        assert retrieval_metrics(query, gallery, GroundTruth(**{k: convert(v) for k, v in labels.items()})) == expected


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e30])
@pytest.mark.parametrize('side', ['query', 'gallery'])
def test_bad_numbers_are_named(side, bad):
    query, gallery, labels = make(0)
    {'query': query, 'gallery': gallery}[side][3, 2] = bad
    with pytest.raises(ValueError, match=f'{side} embeddings contain NaN, infinity.* 1 of .* row 3'):
        retrieval_metrics(query, gallery, GroundTruth(**labels))


@pytest.mark.parametrize(
    'change, match',
    [
        (lambda q, g: (q[:, :4], g), 'query embeddings have 4 numbers but gallery embeddings 8'),
        (lambda q, g: (q[:-1], g), 'query embeddings have 29 rows but there are 30'),
        (lambda q, g: (q, g[:-1]), 'gallery embeddings have 119 rows but there are 120'),
        (lambda q, g: (q[0], g), r'query embeddings must be a floating-point matrix \(N, D\), got shape \(8,\)'),
        (lambda q, g: (q.long(), g), 'query embeddings must be a floating-point matrix'),
        (lambda q, g: (q, g[:, :, None]), 'gallery embeddings must be a floating-point matrix'),
    ],
)
def test_bad_embeddings(change, match):
    query, gallery, labels = make(0)
    with pytest.raises(ValueError, match=match):
        retrieval_metrics(*change(query, gallery), GroundTruth(**labels))


@pytest.mark.parametrize(
    'options, match',
    [
        ({'distance': 'manhattan'}, "distance must be one of .*'manhattan'"),
        ({'block_size': 0}, 'block_size must be at least 1'),
        ({'ks': ()}, 'ks must be positive integers'),
        ({'ks': (0, 1)}, 'ks must be positive integers'),
    ],
)
def test_bad_options(options, match):
    query, gallery, labels = make(0)
    with pytest.raises(ValueError, match=match):
        retrieval_metrics(query, gallery, GroundTruth(**labels), **options)


@pytest.mark.parametrize(
    'arguments, match',
    [
        ({'query_ids': [0.5], 'gallery_ids': [0]}, 'query_ids must be one-dimensional integers'),
        ({'query_ids': [[0]], 'gallery_ids': [0]}, 'query_ids must be one-dimensional integers'),
        ({'query_ids': [0], 'gallery_ids': torch.empty(0, dtype=torch.long)}, 'gallery_ids is empty'),
        ({'query_ids': [0], 'gallery_ids': [0], 'query_cameras': [0]}, 'gallery_cameras is None but query_cameras'),
        ({'query_ids': [0], 'gallery_ids': [0], 'gallery_cameras': [0]}, 'query_cameras is None but gallery_cameras'),
        (
            {'query_ids': [0], 'gallery_ids': [0], 'query_cameras': [0, 1], 'gallery_cameras': [1]},
            'query_cameras has 2 entries but there are 1 identities',
        ),
        ({'query_ids': [0], 'gallery_ids': [1], 'same_set': True}, 'same_set=True needs'),
        ({'query_ids': [0], 'gallery_ids': [1]}, 'None of the 1 queries has a relevant item'),
        (
            {'query_ids': [0], 'gallery_ids': [0], 'query_cameras': [1], 'gallery_cameras': [1]},
            'None of the 1 queries has a relevant item',
        ),
    ],
)
def test_bad_labels(arguments, match):
    with pytest.raises(ValueError, match=match):
        GroundTruth(**arguments)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('offset', [0.0, 1e2, 1e3, 1e4])
def test_a_common_offset_changes_no_euclidean_rank(offset, dtype):
    """|q|^2 - 2 q.g + |g|^2 cancels far from the origin: what all embeddings have in common is taken off first."""
    g = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(40, 32, generator=g, dtype=torch.float64)
    ids = torch.arange(40).repeat_interleave(4)
    gallery = centres[ids] + torch.randn(160, 32, generator=g, dtype=torch.float64)
    query = centres + torch.randn(40, 32, generator=g, dtype=torch.float64)
    moved = [(part + offset).to(dtype) for part in (query, gallery)]
    truth = GroundTruth(torch.arange(40), ids)
    assert retrieval_metrics(query, gallery, truth, distance='euclidean').mAP == 100
    assert retrieval_metrics(*moved, truth, distance='euclidean').mAP == 100
    scores, items = search(*moved, 7, distance='euclidean')
    expected, order = torch.from_numpy(scores_of(*moved, 'euclidean')).sort(dim=1, descending=True, stable=True)
    assert torch.equal(items[:, :4].sort().values, order[:, :4].sort().values)
    torch.testing.assert_close(scores.double(), expected[:, :7], rtol=1e-5, atol=1e-5)
    plain, reranked = (
        retrieval_metrics(*parts, truth, distance='euclidean', rerank=KReciprocal(k1=8, k2=3)).mAP
        for parts in ((query, gallery), moved)
    )
    assert plain == reranked == 100
