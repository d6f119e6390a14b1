"""Which settings benchmarks/paper/tune.py chooses, and which finished runs table.py beside it takes as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import runs, tune
from benchmarks.paper import table as paper_table


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
