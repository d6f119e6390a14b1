"""Which settings benchmarks/paper/tune.py chooses, which runs table.py beside it takes, what sizes.py counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import runs, sizes, tune
from benchmarks.paper import table as paper_table
from sfsc_timm.training import TrainConfig
from sfsc_timm.training.build import probe, resolve_input


def finished(**changes: Any) -> dict[str, Any]:
    """A run by the settings of the configuration, apart from the changes."""
    settings = {**runs.read_config(runs.CONFIGS / 'emoji.yaml'), 'recipe_kwargs': {}, 'seed': 3, **changes}
    return {'settings': settings}


def test_a_run_of_the_settings_of_now_is_taken() -> None:
    assert runs.has_settings(finished(), 'emoji', {}, [])
    own = {'lr': 0.2, 'recipe_kwargs': {'own_batches': True}}
    assert runs.has_settings(finished(**own), 'emoji', own, [])
    assert runs.has_settings(finished(epochs=60), 'emoji', {}, ['--epochs', '60', '--no-preload'])


@pytest.mark.parametrize(
    'changes, own',
    [
        ({'lr': 0.2}, {}),
        ({}, {'lr': 0.2}),
        ({'epochs': 60}, {}),
        ({'recipe_kwargs': {'scope': 'layer'}}, {}),
        ({}, {'recipe_kwargs': {'scope': 'layer'}}),
    ],
)
def test_a_run_of_other_settings_is_trained_again(changes: dict[str, Any], own: dict[str, Any]) -> None:
    assert not runs.has_settings(finished(**changes), 'emoji', own, [])


def test_folders_of_different_settings_differ() -> None:
    names = [runs.folder_name('sfsc-seed0', own) for own in ({}, {'lr': 0.2}, {'recipe_kwargs': {'distill': 0.3}})]
    assert names == ['sfsc-seed0', 'sfsc-seed0-lr-0.2', 'sfsc-seed0-recipe-kwargs-distill=0.3']


def test_settings_of_another_data_set_are_taken_over(tmp_path: Path) -> None:
    source, target = tmp_path / 'source.json', tmp_path / 'target.json'
    with pytest.raises(ValueError, match='--tuned-on must name a data set that tune'):
        paper_table.take_over_settings(target, source, 'emoji')
    source.write_text(json.dumps({'common': {}, 'chosen': {'sfsc': {'lr': 0.2}}, 'trials': []}))
    for _ in range(2):  # it may be repeated, as when a table that was cut goes on
        paper_table.take_over_settings(target, source, 'emoji')
        taken = json.loads(target.read_text())
        assert (taken['data'], taken['chosen']) == ('emoji', {'sfsc': {'lr': 0.2}})
        assert 'trials' not in taken
    target.write_text(source.read_text())
    with pytest.raises(ValueError, match='without trials of their own'):
        paper_table.take_over_settings(target, source, 'emoji')


def trial(name: str, score: float, compatible: int | None = None, widths: int = 4) -> dict[str, Any]:
    counted = {} if compatible is None else {'compatible': compatible}
    return {'trial': name, 'score': score, 'self_tests': [score] * widths, **counted}


@pytest.mark.parametrize(
    'rows, best',
    [
        ([trial('a', 50.0, 10), trial('b', 50.4, 11)], 'b'),
        ([trial('a', 50.0, 12), trial('b', 50.4, 11)], 'a'),
        ([trial('a', 50.0, 12), trial('b', 50.6, 11)], 'b'),
        ([trial('a', 50.0, 12), trial('b', 50.4, 11), trial('c', 50.2, 12)], 'c'),
        ([trial('a', 50.0, 2, widths=2), trial('b', 50.4, 1, widths=2)], 'a'),
        ([trial('a', 50.4), trial('b', 50.4), trial('c', 50.0)], 'a'),
    ],
    ids=['best', 'compatible', 'too far', 'best compatible', 'two widths', 'not counted'],
)
def test_of_trials_alike_a_compatible_one_is_chosen(rows: list[dict[str, Any]], best: str) -> None:
    assert tune.choose(rows)['trial'] == best


def test_what_nested_sizes_lose() -> None:
    """By hand: two seeds, of which one has no model of one size beside it."""

    def matrix(own: float, across: float) -> dict[str, Any]:
        return {'widths': [0.5, 1.0], 'mAP': [[own, across], [across, own]], 'mINP': [[0.0, 0.0], [0.0, 0.0]]}

    def nested(whole: float) -> dict[str, Any]:
        small = {str(dim): matrix(whole - lost, whole - 2 * lost) for dim, lost in ((32, 3.0), (64, 0.5), (128, 0.25))}
        return {'matrix': {**matrix(whole, whole), 'by_dim': {**small, '256': matrix(whole, whole)}}}

    alone = {'matrix': matrix(50.0, 50.0), 'cut': nested(50.0)['matrix']['by_dim']}
    found = {name: (goal, lost) for name, goal, lost in sizes.losses({'nested': {0: nested(49.0), 1: nested(40.0)},
                                                                      'alone': {0: alone}})}  # fmt: skip
    assert found['64 numbers of 256'][1].tolist() == [[0.5, 1.0]] * 2
    assert found['32 numbers of 256'][0] == 3.0
    assert found['256 numbers of those trained alone'][1].tolist() == [[1.0, 1.0]]
    table = sizes.markdown({'nested': {0: nested(49.0), 1: nested(40.0)}, 'alone': {0: alone}}, 'toy')
    assert '| 1 | 64 numbers of 256 | 0.50 ± 0.00 | 1.00 ± 0.00 | 2 | yes |' in table
    assert '| 3 | 32 numbers of 256 | 3.00 ± 0.00 | 6.00 ± 0.00 | 2 | no |' in table
    assert '| 0.5 | 256 numbers of those trained alone | 1.00 | 1.00 | 1 | no |' in table
    assert '| 32 | 128 | 47.00 | 47.00 | 47.00 | 44.00 |' in table


@pytest.mark.parametrize('data', ['emoji', 'glyphs'])
@pytest.mark.parametrize('kind', ['nested', 'alone'])
def test_settings_of_the_sizes(kind: str, data: str) -> None:
    own = sizes.settings_of(kind, data)
    config = TrainConfig(**{**runs.read_config(runs.CONFIGS / f'{data}.yaml'), 'recipe': 'sfsc', **own})
    model = probe(config, resolve_input(config))
    assert model.embed_dim == 256
    assert len(model.embed_dims) == (4 if kind == 'nested' else 1)
