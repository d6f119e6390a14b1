"""Reading weights from files, tensors only."""

from __future__ import annotations

import argparse
import pickle
import pickletools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ['Weights', 'fill', 'read_pickle', 'read_weights']

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Weights:
    """Contents of a checkpoint file.

    Attributes:
        state: The model's state.
        args: Arguments of the training script, by which it made the model; empty if the file has none.
    """

    state: dict[str, Tensor]
    args: dict[str, Any] = field(default_factory=dict)


def read_weights(path: Path, use_ema: bool = False) -> Weights:
    """Reads a file of safetensors, or of torch.save (timm's .pth.tar) without running any code in it.

    Args:
        path: The file.
        use_ema: Take the averaged weights (`state_dict_ema`) of a training checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is corrupt, cut off, or holds anything beside tensors, plain values and argparse.Namespace.
    """
    from timm.models import clean_state_dict

    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {str(path)!r}: there is no such file or folder.')
    content = _read_safetensors(path) if path.suffix == '.safetensors' else read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f'{str(path)!r} holds a {type(content).__name__}, expected a dict of tensors.')
    key = 'state_dict_ema' if use_ema else 'state_dict'
    if use_ema and key not in content:
        raise ValueError(f'use_ema asks for averaged weights, {str(path)!r} has none; leave it out.')
    state = content.get(key, content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{str(path)!r} holds no state_dict; found the entries {sorted(map(str, content))[:8]}.')
    args = content.get('args')
    known = vars(args) if isinstance(args, argparse.Namespace) else {}
    return Weights(clean_state_dict(state), {'model': content.get('arch'), **known} if 'arch' in content else known)


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads a state into a model if all of it fits, and otherwise leaves the model as it was.

    Raises:
        ValueError: Names, shapes or kinds of number differ, or a weight is not finite.
    """
    own = model.state_dict()
    kinds = {name: (_kind(state[name]), _kind(own[name])) for name in sorted(own.keys() & state.keys())}
    problems = {
        'missing': sorted(own.keys() - state.keys()),
        'unknown': sorted(state.keys() - own.keys()),
        'of another shape': [
            f'{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}'
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
        # Whole numbers, booleans and the like would be taken for weights without a word.
        'of another type': [f'{name} {found} for {kind}' for name, (found, kind) in kinds.items() if found != kind],
    }
    if not problems['of another type']:
        problems['not finite'] = sorted(name for name, tensor in state.items() if not tensor.isfinite().all())
    found = [f'{len(names)} {what}: {", ".join(names[:2])}' for what, names in problems.items() if names]
    if found:
        raise ValueError(f'{source!r} does not fit the model {_name(model)}: {"; ".join(found)}.')
    model.load_state_dict(state)


def _kind(tensor: Tensor) -> str:
    """What a tensor holds; the floating types between which weights may be converted are one kind."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return 'no plain tensor'
    return 'floating' if tensor.dtype in _FLOATING else str(tensor.dtype).removeprefix('torch.')


def _name(model: nn.Module) -> str:
    return str(getattr(model, 'pretrained_cfg', {}).get('architecture') or type(model).__name__)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{str(path)!r} is no whole safetensors file; was it cut off? ({error})') from error


def read_pickle(path: Path, *, mmap: bool = False) -> Any:
    """Reads what torch.save wrote, as long as nothing in it has to be executed.

    Args:
        path: The file.
        mmap: Whether tensors may stay on the disk until they are used.

    Raises:
        ValueError: It is damaged, or holds anything beside tensors, plain values and argparse.Namespace.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    # A damaged pickle can fail in any way.
    except Exception as error:
        refused = _refused(path, str(error)) if isinstance(error, pickle.UnpicklingError) else []
        if refused:
            raise ValueError(
                f'{str(path)!r} holds Python objects that could run code ({", ".join(refused)}) and is not loaded; '
                'save the state_dict alone, by torch.save.'
            ) from error
        reason = _reason(error)
        raise ValueError(f'{str(path)!r} is no whole checkpoint of torch.save; was it cut off? ({reason})') from error


def _reason(error: Exception) -> str:
    """First line of a message, without torch's advice to load the file with weights_only=False."""
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r'Unsupported \w+ \d+', str(error))
        return found[0] if found else 'no pickle of tensors and plain values'
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _refused(path: Path, message: str) -> list[str]:
    """Names of the objects that weights_only refuses to load; none if the file is damaged.

    Args:
        path: The file.
        message: Torch's, which tells the first of them where the file is in the form of before torch 1.6.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        told = re.search(r'GLOBAL ([\w.]+)', message)
        return _named_in_pickle(path) or ([told[1]] if told else [])


def _named_in_pickle(path: Path) -> list[str]:
    """Objects that a file which is nothing but a pickle names; it is looked at and not loaded."""
    names, texts = set(), ['', '']
    try:
        with path.open('rb') as file:
            for code, value, _ in pickletools.genops(file):
                if code.name == 'GLOBAL':
                    names.add(str(value).replace(' ', '.'))
                elif code.name == 'STACK_GLOBAL':
                    names.add('.'.join(texts))
                elif isinstance(value, str):
                    texts = [texts[1], value]
    except Exception:
        return []
    return sorted(names)
