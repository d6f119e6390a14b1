"""Every use of a name of torch or timm that is not public, with the reason and what breaks without it.

Tested with timm 1.0.31 and torch 2.14.1, the newest of each; torch 2.9, the oldest that is allowed, has all these
names. Before a new release of either, run the tests against it. Against timm's main branch: clone it, `pip install` the
clone, and run `SFSC_TIMM_SDIST=CLONE SFSC_TIMM_CHECKOUT=CLONE pytest`, in which its own test suite and its train.py
take part.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

import torch
from timm.models._hub import load_model_config_from_path
from timm.models._input import get_model_input_config, update_model_args
from timm.models.efficientnet import _gen_efficientnet, _gen_efficientnet_lite
from timm.models.mobilenetv3 import _gen_mobilenet_v3, _gen_mobilenet_v4
from torch import Tensor, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

__all__ = [
    'BatchNormBase',
    'allow_graphs',
    'arguments_of_train_py',
    'foreach_add_',
    'foreach_copy_',
    'foreach_mul_',
    'gen_efficientnet',
    'gen_efficientnet_lite',
    'gen_mobilenet_v3',
    'gen_mobilenet_v4',
    'get_model_input_config',
    'in_transform',
    'is_default_reduce',
    'load_model_config_from_path',
    'update_model_args',
    'version_of',
]

# timm records in `_model_args` how a model was created, and its save functions write it to config.json. A switch of
# width has to be recorded there, or a saved model comes back at the width of its creation.
update_model_args = update_model_args  # noqa: PLW0127

# What a model takes: a transformer is made for one size, which its pretrained_cfg does not tell.
get_model_input_config = get_model_input_config  # noqa: PLW0127

# Reads config.json as timm does for 'local-dir:' and 'hf-hub:'. Without it we would copy its rules for pretrained_cfg.
load_model_config_from_path = load_model_config_from_path  # noqa: PLW0127

# The builders of timm's EfficientNets and MobileNets that take a channel multiplier; the registered models fix it by
# their name.
gen_efficientnet: Any = _gen_efficientnet
gen_efficientnet_lite: Any = _gen_efficientnet_lite
gen_mobilenet_v3: Any = _gen_mobilenet_v3
gen_mobilenet_v4: Any = _gen_mobilenet_v4

# Common base of BatchNorm and InstanceNorm in all dimensions, SyncBatchNorm and timm's BatchNormAct2d: every width owns
# its tensors. Without it, each class would have to be listed, and one that is forgotten would be shared in silence.
BatchNormBase: type[nn.Module] = nn.modules.batchnorm._NormBase

# One call for many tensors, as torch's optimizers use. Loops over the tensors would give the same, some times slower.
foreach_add_: Any = torch._foreach_add_
foreach_copy_: Any = torch._foreach_copy_
foreach_mul_: Any = torch._foreach_mul_


def version_of(tensor: Tensor) -> int:
    """Autograd's count of the writes to a tensor; without it, an evaluation copy could be served stale."""
    return int(tensor._version)


def in_transform() -> bool:
    """Whether tensors are stand-ins, of no use afterwards: those of torch.func, FakeTensorMode, jit.trace and FX.

    An evaluation copy made of them would outlive the transform, and one put in place would be a constant to a tracer.
    """
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or is_fx_symbolic_tracing()
    )


def allow_graphs(graphs: int) -> None:
    """torch.compile goes eager in silence past its recompile limit: leave room for each width, training or not.

    Nothing is imported for it: where dynamo is not loaded, nothing has been compiled either.
    """
    dynamo = sys.modules.get('torch._dynamo')
    if dynamo is not None:
        config = dynamo.config
        config.recompile_limit = max(config.recompile_limit, 8 + graphs)


def arguments_of_train_py() -> dict[str, Any] | None:
    """What timm's train.py, running as the main script, was asked for, YAML defaults included; None for another script.

    Joint training refuses flags by it; without it they would be ignored in silence.
    """
    parse = getattr(sys.modules['__main__'], '_parse_args', None)
    return None if parse is None else vars(parse()[0])


def is_default_reduce(function: Any) -> bool:
    """Whether `__reduce_ex__` gave pickle's own constructor, which insists on the object's own class.

    A block that recomputes its activations has a class made on the fly, so that this would fail.
    """
    return function is copyreg.__newobj__  # type: ignore[attr-defined]
