"""The matrix: its cells, criterion, JSON form and table; embedding at all widths; costs."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers.retrieval_reference import clustered
from torch import nn

from sfsc_timm.evaluation import (
    CompatibilityMatrix,
    GroundTruth,
    bytes_per_item,
    compatibility_matrix,
    embed,
    latency,
    markdown_table,
    model_cost,
    paper_name,
    retrieval_metrics,
    summary,
    update_gain_table,
)

# The paper's Market-1501 table for SFSC (CVPR 2023, slides), rows query, columns gallery.
PAPER = [
    [58.19, 62.88, 63.48, 69.43],
    [61.24, 70.74, 71.37, 76.37],
    [62.43, 71.25, 72.06, 77.26],
    [68.03, 74.76, 75.67, 81.43],
]
# Its BCT rows (one network per width), without φ/φ filled in: half of the cross-tests are compatible.
ASYMMETRIC = [
    [55.83, 50.85, 53.71, 55.39],
    [52.66, 67.04, 62.08, 66.59],
    [54.48, 62.33, 66.33, 70.14],
    [56.08, 66.66, 69.71, 81.00],
]


def matrix_of(cells, **kwargs):
    cells = np.array(cells)
    return CompatibilityMatrix((0.25, 0.5, 0.75, 1.0), cells, cells / 2, {1: cells + 1, 5: cells + 2}, **kwargs)


class FakeSlimmable(nn.Module):
    """Sub-model w sees only the first w of the pixels' columns; it records what it is asked."""

    def __init__(self):
        super().__init__()
        self.widths = (0.25, 0.5, 1.0)
        self.width = 1.0
        self.project = nn.Linear(8, 6)
        self.norm = nn.BatchNorm1d(6)

    @contextmanager
    def at_width(self, width):
        before, self.width = self.width, width
        try:
            yield self
        finally:
            self.width = before

    def embed(self, x):
        x = x.mean((1, 2))
        return self.norm(self.project(torch.where(torch.arange(8) < 8 * self.width, x, 0.0)))


@pytest.fixture
def images():
    return torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def at(model, width, images):
    with torch.no_grad(), model.at_width(width):
        return model.embed(images)


def test_every_cell_equals_its_own_evaluation():
    g = torch.Generator().manual_seed(0)
    query_ids, gallery_ids = torch.arange(24) % 8, torch.arange(60) % 10
    cameras = torch.randint(0, 3, (24,), generator=g), torch.randint(0, 3, (60,), generator=g)
    truth = GroundTruth(query_ids, gallery_ids, *cameras)
    noise = {1.0: 0.5, 0.25: 1.5, 0.5: 1.0}
    queries = {w: clustered(g, query_ids, 8, s) for w, s in noise.items()}
    galleries = {w: clustered(g, gallery_ids, 8, s) for w, s in noise.items()}
    costs = {0.25: 1, 0.5: 2, 1.0: 4}
    result = compatibility_matrix(
        queries, galleries, truth, ks=(1, 3), params=costs, macs=costs, info={'dataset': 'toy'}
    )
    assert result.widths == (0.25, 0.5, 1.0)
    assert result.params == result.macs == (1, 2, 4)
    assert result.to_dict()['dataset'] == 'toy'
    assert result.to_dict()['distance'] == 'cosine'
    assert result.info['num_queries'] + result.info['num_skipped_queries'] == 24
    for i, q in enumerate(result.widths):
        for j, gallery_width in enumerate(result.widths):
            cell = retrieval_metrics(queries[q], galleries[gallery_width], truth, ks=(1, 3))
            assert result.mAP[i, j] == cell.mAP
            assert result.mINP[i, j] == cell.mINP
            assert {k: values[i, j] for k, values in result.cmc.items()} == cell.cmc
    assert result.mAP[0, 2] != result.mAP[2, 0]


@pytest.mark.parametrize('gallery_widths', [(0.5,), (0.25, 0.5, 1.0), ()])
def test_widths_must_agree(gallery_widths):
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match='queries and galleries must have the same widths'):
        compatibility_matrix({0.25: x, 1.0: x}, dict.fromkeys(gallery_widths, x), GroundTruth([0] * 4, [0] * 4))


def test_figures_of_the_paper():
    sfsc = matrix_of(PAPER)
    assert sfsc.diagonal_mean == pytest.approx(70.605)
    assert sfsc.cross_mean == pytest.approx(69.51, abs=0.005)
    assert sfsc.num_compatible == 12
    assert sfsc.gain[0, 3] == pytest.approx(69.43 - 58.19)
    assert sfsc.gain[3, 1] == pytest.approx(74.76 - 70.74)
    assert np.allclose(sfsc.gain.diagonal(), 0)
    assert sfsc.compatible.all()


def test_update_gain_of_the_paper():
    """By hand: what a small query gains in a bigger gallery, of what that gallery's model is better by."""
    gained = [62.88 - 58.19, 63.48 - 58.19, 69.43 - 58.19, 71.37 - 70.74, 76.37 - 70.74, 77.26 - 72.06]
    possible = [70.74 - 58.19, 72.06 - 58.19, 81.43 - 58.19, 72.06 - 70.74, 81.43 - 70.74, 81.43 - 72.06]
    sfsc = matrix_of(PAPER)
    assert sfsc.update_gain == pytest.approx(sum(gained) / sum(possible)) == pytest.approx(32.68 / 71.04)
    cells = sfsc.update_gains[np.triu_indices(4, 1)]
    assert cells == pytest.approx([g / p for g, p in zip(gained, possible, strict=True)])
    assert cells.round(2).tolist() == [0.37, 0.38, 0.48, 0.48, 0.53, 0.55]
    assert cells.mean() == pytest.approx(0.47, abs=0.005)
    assert np.isnan(sfsc.update_gains[np.tril_indices(4)]).all()  # no bigger gallery


def test_update_gain_leaves_out_pairs_with_little_to_gain():
    """In ASYMMETRIC the query φ1/4 is better than φ9/16 is; 0.99 mAP more are too few, 1 is enough."""
    asymmetric = matrix_of(ASYMMETRIC)
    assert np.isnan(asymmetric.update_gains[1, 2])
    gained = [50.85 - 55.83, 53.71 - 55.83, 55.39 - 55.83, 66.59 - 67.04, 70.14 - 66.33]
    possible = [67.04 - 55.83, 66.33 - 55.83, 81.00 - 55.83, 81.00 - 67.04, 81.00 - 66.33]
    assert asymmetric.update_gain == pytest.approx(sum(gained) / sum(possible))
    for better, counts in ((0.99, False), (1.0, True)):
        cells = np.array([[50.0, 50.5], [49.0, 50.0 + better]])
        pair = CompatibilityMatrix((0.5, 1.0), cells, cells, {1: cells})
        assert np.isnan(pair.update_gain) != counts
        assert (pair.to_dict()['update_gain'] is None) != counts
        assert ('update gain -.' in summary(pair)) != counts
        assert update_gain_table(pair).endswith('0.50 |' if counts else '- |')


def test_incompatible_cells_are_found():
    asymmetric = matrix_of(ASYMMETRIC)
    expected = [
        [i == j or ASYMMETRIC[i][j] > min(ASYMMETRIC[i][i], ASYMMETRIC[j][j]) for j in range(4)] for i in range(4)
    ]
    assert asymmetric.compatible.tolist() == expected
    assert asymmetric.num_compatible == sum(map(sum, expected)) - 4 < 12


def test_an_equal_cross_test_is_no_gain():
    same = matrix_of(np.full((4, 4), 50.0))
    assert same.num_compatible == 0
    assert same.compatible.diagonal().all()


def test_dictionary_has_the_documented_keys_and_survives_json():
    matrix = matrix_of(PAPER, params=(1, 2, 3, 4), macs=(10, 20, 30, 40), info={'dataset': 'market1501', 'seed': 3})
    values = json.loads(json.dumps(matrix.to_dict()))
    assert values['widths'] == [0.25, 0.5, 0.75, 1.0]
    assert values['mAP'] == PAPER
    assert values['rank1'][0][3] == pytest.approx(70.43)
    assert values['params'] == [1, 2, 3, 4]
    assert values['macs'] == [10, 20, 30, 40]
    back = CompatibilityMatrix.from_dict(values)
    assert back.to_dict() == matrix.to_dict()
    assert back.info == {'dataset': 'market1501', 'seed': 3}
    assert back.cmc.keys() == {1, 5}
    assert values['update_gain'] == matrix.update_gain
    assert values['update_gains'][0] == [None, *matrix.update_gains[0, 1:]]


def test_what_was_written_before_is_read():
    """The MACs were called flops, only `eval` wrote names, and there was no update gain."""
    matrix = matrix_of(PAPER, macs=(10, 20, 30, 40))
    values = matrix.to_dict()
    for name in ('names', 'update_gain', 'update_gains'):
        del values[name]
    values['flops'] = values.pop('macs')
    assert CompatibilityMatrix.from_dict(values).to_dict() == matrix.to_dict()


def test_names_belong_to_the_matrix():
    names = ('A φ1/4', 'B φ1/4', 'A φ', 'B φ')
    cells = np.array(PAPER)
    matrix = CompatibilityMatrix((0.5, 0.5, 1.0, 1.0), cells, cells, {1: cells}, names=names)
    assert CompatibilityMatrix.from_dict(json.loads(json.dumps(matrix.to_dict()))).names == names
    assert matrix_of(PAPER).names == ('φ1/16', 'φ1/4', 'φ9/16', 'φ')
    with pytest.raises(ValueError, match='names must have one entry for each'):
        CompatibilityMatrix((0.5, 0.5, 1.0, 1.0), cells, cells, {1: cells}, names=names[:3])


def test_single_width_survives_json():
    one = np.array([[42.0]])
    values = json.loads(json.dumps(CompatibilityMatrix((1.0,), one, one, {1: one}).to_dict()))
    assert values['cross_mean'] is None
    back = CompatibilityMatrix.from_dict(values)
    assert np.isnan(back.cross_mean)
    assert back.diagonal_mean == 42.0
    assert 'cross' not in summary(back)


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match='mAP must be 4 x 4'):
        matrix_of(np.zeros((3, 4)))
    with pytest.raises(ValueError, match='params must have one entry for each'):
        matrix_of(PAPER, params=(1, 2))
    with pytest.raises(ValueError, match=r"missing keys \['mAP', 'mINP'\]"):
        CompatibilityMatrix.from_dict({'widths': [1.0]})


@pytest.mark.parametrize(
    'width, name', [(0.25, 'φ1/16'), (0.5, 'φ1/4'), (0.75, 'φ9/16'), (1.0, 'φ'), (0.3, 'φ9/100'), (1 / 3, 'φ1/9')]
)
def test_paper_names(width, name):
    assert paper_name(width) == name


def test_table():
    table = markdown_table(matrix_of(ASYMMETRIC, params=(999, 1_000, 25_600_000, 10**9), macs=(1, 2, 3, 4_120_000_000)))
    lines = table.splitlines()
    assert len({len(line) for line in lines[:6]}) == 1
    assert 'φ1/16 (0.25)' in lines[0]
    assert '50.85 / 51.85 ✗' in lines[2]
    assert '55.83 / 56.83 |' in lines[2]
    assert [row.split('|')[-3].strip() for row in lines[2:6]] == ['999', '1k', '25.6M', '1G']
    assert lines[5].split('|')[-2].strip() == '4.12G'
    assert 'of 12 cross-tests beat the weaker self-test' in lines[-1]
    with pytest.raises(ValueError, match=r'k must be one of the computed ranks \[1, 5\], got 20'):
        markdown_table(matrix_of(PAPER), k=20)


@pytest.mark.parametrize('flip', [False, True])
def test_embed_equals_one_pass_per_width(images, flip):
    model = FakeSlimmable().train()
    statistics = model.norm.running_mean.clone()
    reads = []

    def batches():
        for part in images.split(4):
            reads.append(len(part))
            yield part, torch.zeros(len(part))  # as a DataLoader gives them: images, labels

    result = embed(model, batches(), flip=flip)
    assert reads == [4, 4, 2]  # each image is decoded once for all widths
    assert model.training
    assert model.width == 1.0
    assert torch.equal(model.norm.running_mean, statistics)
    model.eval()
    for width in model.widths:
        expected = at(model, width, images)
        if flip:
            expected = (expected + at(model, width, images.flip(-1))) / 2
        torch.testing.assert_close(result[width], expected)
        assert not result[width].requires_grad
    assert not torch.equal(result[0.25], result[1.0])


def test_embed_at_chosen_widths(images):
    assert embed(FakeSlimmable(), [images], (0.5,)).keys() == {0.5}


def test_embed_leaves_the_mode_as_it_was_after_an_error(images):
    model = FakeSlimmable().train()
    with pytest.raises(RuntimeError):
        embed(model, [images[:, :, :, :5]])
    assert model.training


def test_embed_refuses_bad_input(images):
    with pytest.raises(ValueError, match=r'widths must be among the model.s \(0.25, 0.5, 1.0\), got \(0.3,\)'):
        embed(FakeSlimmable(), [images], (0.3,))
    with pytest.raises(ValueError, match='batches is empty'):
        embed(FakeSlimmable(), [])
    unpooled = FakeSlimmable()
    unpooled.embed = lambda x: x.mean((1, 2))[:, :, None]
    with pytest.raises(ValueError, match=r'embeddings of shape \(10, 8, 1\), expected \(B, D\)'):
        embed(unpooled, [images])


def test_cost_of_a_convolution_and_a_linear_layer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 7))
    cost = model_cost(model.train(), (3, 5, 5))
    assert cost.params == 8 * 3 * 9 + 8 * 25 * 7 + 7
    assert cost.macs == 25 * 8 * 3 * 9 + 8 * 25 * 7  # multiply-adds, not twice as many
    assert model.training


def test_cost_of_resnet50_is_the_published_one():
    timm = pytest.importorskip('timm')
    cost = model_cost(timm.create_model('resnet50', device='meta'))
    assert cost.params == 25_557_032
    assert cost.macs == pytest.approx(4.09e9, rel=0.01)  # timm's own results table: 4.09 GMACs


def test_latency_calls_as_often_as_asked():
    calls = []
    seconds = latency(lambda x: calls.append(torch.is_inference_mode_enabled()), torch.zeros(1), repeats=5, warmup=2)
    assert calls == [True] * 7
    assert 0 <= seconds < 1
    with pytest.raises(ValueError, match='repeats must be at least 1'):
        latency(torch.sin, torch.zeros(1), repeats=0)


def test_bytes_per_item():
    assert bytes_per_item(256) == 1024
    assert bytes_per_item(256, torch.float16) == 512
