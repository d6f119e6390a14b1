"""`evaluate`: models and a benchmark in, the matrix out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_compatibility_matrix import FakeSlimmable

from sfsc_timm.data import Batch, RetrievalData, Sample
from sfsc_timm.evaluation import (
    Embedder,
    GroundTruth,
    KReciprocal,
    compatibility_matrix,
    embed,
    evaluate,
    model_cost,
    retrieval_metrics,
)

CHANNELS, SIDE = 3, 8


class Model(FakeSlimmable):
    """Dense models of it are one layer with as many channels as its width stands for."""

    def extract(self, width):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CHANNELS * SIDE**2, int(8 * width)))


def model(seed=0, widths=(0.25, 0.5, 1.0)):
    torch.manual_seed(seed)
    made = Model()
    made.widths = widths
    return made


@pytest.fixture
def data():
    pixels = np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, CHANNELS), np.uint8)
    samples = [Sample(image, i % 4, i // 4 % 2) for i, image in enumerate(pixels)]
    return RetrievalData('toy', (), samples[:16], samples[16:], ks=(1, 3))


def batches(samples, unreadable=(), size=5):
    """As `data.batches` serves them: in order, without those that cannot be read."""
    places = [i for i in range(len(samples)) if i not in unreadable]
    for start in range(0, len(places), size):
        part = torch.tensor(places[start : start + size])
        images = torch.stack([torch.from_numpy(samples[i].image).permute(2, 0, 1) / 255 for i in part])
        yield Batch(images, part, part, part)


def embedder(made, data, **kwargs):
    return Embedder(made, batches(data.query), batches(data.gallery), **kwargs)


def embeddings(made, samples, **kwargs):
    return embed(made, (batch.images for batch in batches(samples)), **kwargs)


@pytest.mark.parametrize('flip', [False, True])
def test_it_is_the_matrix_of_the_embeddings(data, flip):
    made = model()
    result = evaluate(embedder(made, data), None, data, flip=flip, distance='euclidean', rerank=KReciprocal(4, 2))
    expected = compatibility_matrix(
        embeddings(made, data.query, flip=flip),
        embeddings(made, data.gallery, flip=flip),
        GroundTruth.of(data),
        ks=(1, 3),
        distance='euclidean',
        rerank=KReciprocal(4, 2),
        info={'data': 'toy'},
    )
    assert result.to_dict() == expected.to_dict()
    assert result.params is result.macs is None


def test_two_models_stand_in_rows_and_columns_by_their_cost(data):
    a, b = model(0), model(1, widths=(0.5, 1.0))
    sides = [embedder(m, data, widths=w, label=n, input_size=(CHANNELS, SIDE, SIDE)) for m, w, n in
             ((a, (1.0, 0.25), 'A '), (b, None, 'B '))]  # fmt: skip
    result = evaluate(*sides, data, timed=True)
    assert result.names == ('A φ1/16', 'B φ1/4', 'A φ', 'B φ')
    assert result.widths == (0.25, 0.5, 1.0, 1.0)
    costs = [model_cost(m.extract(w), (CHANNELS, SIDE, SIDE)) for m, w in ((a, 0.25), (b, 0.5), (a, 1.0), (b, 1.0))]
    assert result.macs == tuple(cost.macs for cost in costs)
    assert result.params == tuple(cost.params for cost in costs)
    assert all(value > 0 for value in result.info['latency_ms'])
    assert result.info['bytes_per_item'] == [24] * 4
    query, gallery = embeddings(a, data.query)[0.25], embeddings(b, data.gallery)[1.0]
    assert result.mAP[0, 3] == retrieval_metrics(query, gallery, GroundTruth.of(data)).mAP


def test_unreadable_images_take_no_part(data):
    made, lost = model(), ({1, 5}, {0, 15})
    result = evaluate(Embedder(made, batches(data.query, lost[0]), batches(data.gallery, lost[1])), None, data)
    left = RetrievalData(
        'toy',
        (),
        [s for i, s in enumerate(data.query) if i not in lost[0]],
        [s for i, s in enumerate(data.gallery) if i not in lost[1]],
        ks=(1, 3),
    )
    assert result.to_dict() == evaluate(embedder(made, left), None, left).to_dict()
    assert result.info['num_gallery'] == 14


def test_a_shared_list_is_embedded_once(data):
    shared = RetrievalData('toy', (), data.query, data.query, shared=True)

    def never():
        raise AssertionError('the gallery is the queries')
        yield

    made = model()
    result = evaluate(Embedder(made, batches(data.query), never()), None, shared)
    found = embeddings(made, data.query)
    assert result.mAP[0, 2] == retrieval_metrics(found[0.25], found[1.0], GroundTruth.of(shared)).mAP


def test_unknown_widths_are_refused(data):
    with pytest.raises(ValueError, match=r'widths must be among'):
        evaluate(embedder(model(), data, widths=(0.3,)), None, data)
