from pathlib import Path

import numpy as np
import pytest

from sfsc_timm.data import DISTRACTOR, RetrievalData, Sample


def sample(identity: int, camera: int = 0) -> Sample:
    return Sample(Path(f'{identity}_{camera}.jpg'), identity, camera)


TRAIN = [sample(7, 0), sample(7, 1), sample(3, 1)]
QUERY = [sample(1, 0)]
GALLERY = [sample(1, 1), sample(DISTRACTOR, 2)]


def test_relabels_training_identities_in_ascending_order():
    data = RetrievalData('toy', TRAIN, QUERY, GALLERY)
    assert data.classes == (3, 7)
    assert data.num_classes == 2
    assert [s.identity for s in data.training] == [1, 1, 0]
    assert [s.image for s in data.training] == [s.image for s in TRAIN]
    assert [s.camera for s in data.training] == [0, 1, 1]


def test_summary_counts_each_split():
    lines = RetrievalData('toy', TRAIN, QUERY, GALLERY).summary().splitlines()
    assert [line.split() for line in lines] == [
        ['toy', 'images', 'identities', 'cameras', 'distractors'],
        ['train', '3', '2', '2', '0'],
        ['query', '1', '1', '1', '0'],
        ['gallery', '2', '1', '2', '1'],
    ]
    assert len({len(line) for line in lines}) == 1


def test_summary_of_shared_data_without_cameras():
    test = [sample(1), sample(1, 1)]
    lines = RetrievalData('toy', TRAIN, test, test, cameras=False, shared=True).summary().splitlines()
    assert lines[0].split() == ['toy', 'images', 'identities', 'cameras']
    assert lines[1].split() == ['train', '3', '2', '-']
    assert lines[-1] == 'query and gallery are the same images'


@pytest.mark.parametrize(
    'changes,message',
    [
        ({'query': []}, 'query is empty'),
        ({'gallery': []}, 'gallery is empty'),
        ({'query': [sample(7)]}, r'1 identities are both in train .*\[7\]'),
        ({'gallery': [*GALLERY, sample(3)]}, r'both in train .*\[3\]'),
        ({'train': [sample(DISTRACTOR)]}, 'train holds distractors'),
        ({'query': [sample(DISTRACTOR)]}, 'query holds distractors'),
        ({'gallery': [sample(1, 0), sample(2, 1)]}, 'no query has a match in the gallery from another camera'),
        ({'gallery': [sample(2, 1)], 'cameras': False}, 'no query has a match in the gallery;'),
        ({'shared': True}, 'shared=True needs the same samples'),
        ({'ks': (1, 1)}, 'ks must be ascending'),
        ({'ks': (0, 5)}, 'ks must be ascending'),
        ({'ks': ()}, 'ks must be ascending'),
    ],
)
def test_refuses_inconsistent_splits(changes, message):
    with pytest.raises(ValueError, match=message):
        RetrievalData(**{'name': 'toy', 'train': TRAIN, 'query': QUERY, 'gallery': GALLERY, **changes})


def test_an_image_alone_is_no_match_for_itself():
    test = [sample(1), sample(2)]
    with pytest.raises(ValueError, match='no query has a match'):
        RetrievalData('toy', TRAIN, test, test, cameras=False, shared=True)


def test_distractors_alone_are_no_match():
    with pytest.raises(ValueError, match='no query has a match'):
        RetrievalData('toy', TRAIN, QUERY, [sample(DISTRACTOR, 1)])


@pytest.mark.parametrize('arguments', [{'identity': -2}, {'identity': 0, 'camera': -1}])
def test_refuses_labels_below_the_least(arguments):
    with pytest.raises(ValueError, match='must be at least 0'):
        Sample(np.zeros((2, 2), np.uint8), **arguments)
