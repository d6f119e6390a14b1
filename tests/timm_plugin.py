"""Pytest plugin under which timm's own tests/test_models.py tests our models, and only them.

    pytest -p timm_plugin timm-X/tests/test_models.py -k sfsc_

timm's tests are parametrised by `timm.list_models` at import. Registering our models first puts them on its lists;
naming only ours keeps the collection short, and our modules join those that timm tests for forward_intermediates.
"""

from __future__ import annotations

import os
from typing import Any

import timm

import sfsc_timm  # noqa: F401  registers the models

_ALL = timm.list_models
# timm knows a module by the last part of its name.
_FAMILIES = sorted({timm.model_entrypoint(name).__module__.rpartition('.')[2] for name in _ALL('sfsc_*')})
_WANTED = os.environ.get('SFSC_TIMM_MODELS', 'sfsc_*').split(',')


def _list_models(filter: Any = '', module: Any = '', *args: Any, **kwargs: Any) -> list[str]:  # noqa: A002
    if isinstance(module, (list, tuple)):
        module = [*module, *_FAMILIES]
    tags = kwargs.get('include_tags', False)
    wanted = {name for pattern in _WANTED for name in _ALL(pattern, include_tags=tags)}
    return [name for name in _ALL(filter, module, *args, **kwargs) if name in wanted]


timm.list_models = _list_models
