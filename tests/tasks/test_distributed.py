"""Two processes against one, and against each other; one start for all tests, since starting is what takes long."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.joint import Opposing, assert_equal, batch, convnext, gradients_of
from helpers.replicas import WORLD, work

from sfsc_timm.tasks import SFSCTask

if not torch.distributed.is_available():
    pytest.skip('torch was built without distributed', allow_module_level=True)

Results = list[dict[str, Any]]


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp('processes')
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f'{rank}.pt') for rank in range(WORLD)]


@pytest.mark.parametrize('case', ['one_batch', 'with_no_sync', 'without_no_sync'])
def test_two_processes_equal_one_with_both_halves(results: Results, case: str) -> None:
    expected = gradients_of(SFSCTask(convnext(), Opposing(), seed=3), *batch(8))
    for result in results:
        assert_equal(result[case], expected)


def test_half_precision_is_averaged_in_backward(results: Results) -> None:
    expected = gradients_of(SFSCTask(convnext(), aggregation='sum'), *batch(8))
    for result in results:
        assert_equal(result['half_precision'], expected, 0.1)


@pytest.mark.parametrize('case', ['one_batch', 'with_no_sync', 'without_no_sync', 'half_precision'])
def test_gradients_are_bit_equal(results: Results, case: str) -> None:
    assert all(torch.equal(a, b) for a, b in zip(*(result[case] for result in results), strict=True))


def test_five_steps_leave_bit_equal_models(results: Results) -> None:
    first, second = (result['five_steps'] for result in results)
    assert first.keys() == second.keys()
    assert 'layer1.0.conv1.weight' in first
    assert 'ema.layer1.0.conv1.weight' in first
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_a_factor_of_each_process_is_refused(results: Results) -> None:
    assert all('scaled alike on every process, got factors from 1.0 to 2.0' in r['different_factors'] for r in results)


def test_statistics_are_each_process_own_until_the_next_step(results: Results) -> None:
    """Otherwise the bit-equality above would show nothing."""
    assert all(result['statistics_differ_between_steps'] for result in results)


@pytest.mark.usefixtures('gloo')
def test_options() -> None:
    task = SFSCTask(convnext())
    with pytest.raises(ValueError, match='static_graph'):
        task.prepare_distributed(static_graph=True)
    assert task.prepare_distributed(device_ids=[0], broadcast_buffers=False) is task
    with pytest.raises(RuntimeError, match='before prepare_distributed'):
        task.compile()
