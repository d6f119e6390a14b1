"""What a publish starts from: a checkpoint, and what its training run left beside it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..evaluation import CompatibilityMatrix
from ..models import Slimmable
from .load import Checkpoint, load_checkpoint_model
from .read import read_weights

__all__ = ['Source', 'find_checkpoint', 'open_source', 'portable', 'read_source', 'with_accuracy']

_OF_A_RUN = ('model_best.pth.tar', 'last.pth.tar')  # timm's names, the better one first


@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint and what is known about it.

    Attributes:
        checkpoint: The model and its preprocessing.
        model: The model.
        folder: Where the checkpoint lies, and its measurements with it.
        arguments: Settings of the training run; empty if there are none.
        matrix: Measured accuracy; None if there is none, or it was not looked for yet.
        of_this_model: Whether `matrix` was measured on this very checkpoint.
    """

    checkpoint: Checkpoint
    model: Slimmable
    folder: Path
    arguments: dict[str, Any]
    matrix: CompatibilityMatrix | None = None
    of_this_model: bool = True

    @property
    def matrix_file(self) -> Path:
        """Where its measured accuracy lies, if it was measured."""
        return self.folder / 'matrix.json'


def find_checkpoint(source: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path means: itself, or in the folder of a training run the best one, else the last.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The source is not on this machine.
    """
    name = os.fspath(source)
    if name.startswith(('hf-hub:', 'hf_hub:')):
        raise ValueError(f'source must be a checkpoint on this machine to be published, got {name!r}.')
    path = Path(name.removeprefix('local-dir:')).expanduser()
    if path.is_file() or (path / 'config.json').is_file():
        return path
    found = next((path / file for file in _OF_A_RUN if (path / file).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f'no checkpoint at {str(path)!r}: expected a file, a folder with config.json and model.safetensors, or a '
            f'training run with {" or ".join(_OF_A_RUN)}.'
        )
    return found


def read_source(
    source: str | os.PathLike[str],
    matrix: str | os.PathLike[str] | None = None,
    note: str | None = None,
    **loading: Any,
) -> Source:
    """Loads a checkpoint with its run's settings (args.yaml) and its measured accuracy (matrix.json).

    Args:
        source: See `find_checkpoint`.
        matrix: File of the accuracy; None takes matrix.json beside the checkpoint, if that is there.
        note: What to say of the accuracy; needed where it is that of another checkpoint.
        **loading: As for `load_checkpoint_model`.

    Raises:
        FileNotFoundError: There is no checkpoint, or no file of that name.
        ValueError: It is no whole slimmable model with a common embedding, or the accuracy is another checkpoint's.
    """
    return with_accuracy(open_source(source, **loading), matrix, note)


def open_source(source: str | os.PathLike[str], **loading: Any) -> Source:
    """Loads a checkpoint with its run's settings; `with_accuracy` adds what was measured.

    Args:
        source: See `find_checkpoint`.
        **loading: As for `load_checkpoint_model`.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is no whole slimmable model with a common embedding.
    """
    path = find_checkpoint(source)
    checkpoint = load_checkpoint_model(path, **loading)
    model = checkpoint.model
    if not isinstance(model, Slimmable) or not model.embed_dim:
        raise ValueError(
            f'{str(path)!r} must hold a whole slimmable model with a common embedding (sfsc_..., embed_dim > 0); '
            f'its widths are {checkpoint.widths}.'
        )
    return Source(checkpoint, model, path if path.is_dir() else path.parent, _arguments(path))


def with_accuracy(source: Source, matrix: str | os.PathLike[str] | None = None, note: str | None = None) -> Source:
    """A checkpoint with its measured accuracy.

    Args:
        source: The checkpoint.
        matrix: File of the accuracy; None takes matrix.json beside the checkpoint, if that is there.
        note: What to say of the accuracy; needed where it is that of another checkpoint.

    Raises:
        FileNotFoundError: No file of that name.
        ValueError: It is no matrix, or another checkpoint's without a note.
    """
    file = source.matrix_file if matrix is None else Path(matrix)
    if matrix is None and not file.is_file():
        return source
    measured = read_matrix(file)
    return replace(source, matrix=measured, of_this_model=_check_matrix(measured, file, source.checkpoint, note))


def read_matrix(file: Path) -> CompatibilityMatrix:
    """Accuracy as `sfsc-timm eval` writes it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no matrix.
    """
    try:
        return CompatibilityMatrix.from_dict(json.loads(file.read_text(encoding='utf-8')))
    except FileNotFoundError:
        raise FileNotFoundError(f'no matrix at {str(file)!r}; `sfsc-timm eval` writes one.') from None
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).rstrip('.')
        raise ValueError(f'{str(file)!r} is no compatibility matrix: {reason}; `sfsc-timm eval` writes one.') from error


def _check_matrix(matrix: CompatibilityMatrix, file: Path, checkpoint: Checkpoint, note: str | None) -> bool:
    """Whether the accuracy is this checkpoint's."""
    if len(set(matrix.widths)) != len(matrix.widths) or not set(matrix.widths) <= set(checkpoint.widths):
        raise ValueError(f'{str(file)!r} has the widths {matrix.widths}, the checkpoint {checkpoint.widths}.')
    declared = {entry.get('compatibility') for entry in matrix.info.get('checkpoints', ())}
    if 'compatibility' in matrix.info:
        declared.add(matrix.info['compatibility'])
    if declared == {checkpoint.compatibility}:
        return True
    if note is None:
        others = ', '.join(sorted(map(str, declared))) or 'a checkpoint that it does not name'
        raise ValueError(
            f'{str(file)!r} was measured on {others}, this checkpoint has the compatibility id '
            f'{checkpoint.compatibility}: publish the one that was measured (last.pth.tar, use_ema), evaluate this one '
            'with `sfsc-timm eval`, or say in a note what the figures are of.'
        )
    return False


def _arguments(path: Path) -> dict[str, Any]:
    """Settings of the training run, without where things lay on the machine that ran it."""
    file = (path if path.is_dir() else path.parent) / 'args.yaml'
    found: Any = {}
    if file.is_file():
        try:
            found = yaml.safe_load(file.read_text(encoding='utf-8'))
        except yaml.YAMLError as error:
            raise ValueError(f'{str(file)!r} holds no settings: {error}') from error
    elif path.is_file() and path.suffix != '.safetensors':
        found = read_weights(path).args
    if not isinstance(found, Mapping):
        raise ValueError(f'{str(file)!r} holds no settings but a {type(found).__name__}.')
    return {str(key): portable(value) for key, value in found.items() if value not in (None, '', [], {})}


def portable(value: Any) -> Any:
    """A value that YAML can write, with the last component of each absolute path."""
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if ' ' not in text:
        return Path(text).name if Path(text).is_absolute() else text
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    if not any(Path(word).is_absolute() for word in words):
        return text
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)
