"""The matrix at several embedding sizes: of the first numbers of the same embeddings."""

from __future__ import annotations

import json

import pytest
import torch
from test_evaluate import CHANNELS, SIDE, Model, data, embedder, embeddings, model  # noqa: F401  data is a fixture

from sfsc_timm.evaluation import (
    CompatibilityMatrix,
    GroundTruth,
    by_size,
    compatibility_matrix,
    evaluate,
    model_cost,
    size_table,
)

SIZES = (2, 4, 6)


class Nested(Model):
    """Its dense models have a last layer of as many outputs as are asked for."""

    def extract(self, width, *, dim=None):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CHANNELS * SIDE**2, int(8 * width) + (dim or 6)))


def nested():
    torch.manual_seed(0)
    made = Nested()
    made.widths = (0.25, 0.5, 1.0)
    return made


def test_each_size_is_the_matrix_of_the_first_numbers(data):  # noqa: F811
    made = nested()
    whole = embeddings(made, data.query)[1.0].shape[1]
    assert whole == 6
    size = (CHANNELS, SIDE, SIDE)
    result = evaluate(embedder(made, data, input_size=size), None, data, timed=True, dims=SIZES)
    result = CompatibilityMatrix.from_dict(json.loads(json.dumps(result.to_dict())))
    assert tuple(by_size(result)) == SIZES
    queries, gallery = embeddings(made, data.query), embeddings(made, data.gallery)
    for dim, matrix in by_size(result).items():
        expected = compatibility_matrix(
            {w: q[:, :dim] for w, q in queries.items()},
            {w: g[:, :dim] for w, g in gallery.items()},
            GroundTruth.of(data),
            ks=(1, 3),
        )
        assert matrix.mAP.tolist() == expected.mAP.tolist()
        assert matrix.cmc[3].tolist() == expected.cmc[3].tolist()
        assert matrix.gain.tolist() == expected.gain.tolist()
        assert matrix.info['bytes_per_item'] == 4 * dim
        assert matrix.params == tuple(model_cost(made.extract(w, dim=dim), size).params for w in made.widths)
        assert matrix.names == result.names
    assert result.mAP.tolist() == by_size(result)[6].mAP.tolist()
    assert result.params == by_size(result)[6].params
    table = size_table(result).splitlines()
    assert '2 (8 B)' in table[0]
    small = by_size(result)[2].mAP
    assert f'{small[0, 0]:.1f} / {small[0, 2]:.1f}' in table[2]


def test_without_sizes_nothing_changes(data):  # noqa: F811
    result = evaluate(embedder(model(), data), None, data)
    assert by_size(result) == {}
    assert 'by_dim' not in result.to_dict()


def test_sizes_that_are_none(data):  # noqa: F811
    for wrong in ((0,), (4, 7)):
        with pytest.raises(ValueError, match='dims must be from 1 to 6, the numbers of an embedding, got'):
            evaluate(embedder(nested(), data), None, data, dims=wrong)
    result = evaluate(embedder(model(), data), None, data)
    result.info['by_dim'] = {'4': {'mAP': [[1.0]]}}
    with pytest.raises(ValueError, match='by_dim must hold a matrix for each size'):
        by_size(result)
