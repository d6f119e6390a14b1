"""Every test starts from the same seed, on one thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded(_one_thread: None) -> None:
    torch.manual_seed(0)


@pytest.fixture
def gloo() -> Iterator[None]:
    """A process group of this process alone; it needs no network."""
    dist = torch.distributed
    if not dist.is_available():
        pytest.skip('torch was built without distributed')
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def dynamo() -> Iterator[None]:
    """torch.compile without anything left over from other tests, and its limits as they were afterwards."""
    import torch._dynamo

    trace = logging.getLogger('torch.__trace')  # pytest would format each of its thousands of lines
    propagate, trace.propagate = trace.propagate, False
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()
    trace.propagate = propagate
