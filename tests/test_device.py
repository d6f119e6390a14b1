"""Where is computed, and on how many threads: what cannot be used is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sfsc_timm._device import find_device, use_threads


def test_finds_devices() -> None:
    assert find_device('cpu') == torch.device('cpu')
    assert find_device(None).type == ('cuda' if torch.cuda.is_available() else 'cpu')


@pytest.mark.parametrize(
    'name', ['meta', 'mkldnn', 'xla', 'hpu', 'cuda:99', 'cpu:3', 'cpu:-1', 'nope', 'CPU', '', 'cpu\n', 5, True, 2.5, []]
)
def test_refuses_devices_that_cannot_be_used(name: Any) -> None:
    with pytest.raises(ValueError, match=r'device .* cannot be used: .*; name one that computes here') as error:
        find_device(name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('count', [-1, 10**6, 10**30, 1.5, True, 'all', float('nan')])
def test_refuses_numbers_of_threads_that_no_machine_has(count: Any) -> None:
    with pytest.raises(ValueError, match=r'threads must be .*from 0, for all cores, to \d+, got '):
        use_threads(count)


def test_sets_threads() -> None:
    use_threads(2)
    assert torch.get_num_threads() == 2
    use_threads(1)
    assert torch.get_num_threads() == 1
