"""Checkpoints from wherever they lie, as models that embed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from timm.data.model_config import resolve_input_data_config
from timm.models import resolve_model_input_args
from torch import nn

from .._private import load_model_config_from_path
from ..data import Preprocessing
from ..models import Slimmable
from ..models._shipped import shipped_id
from .declared import believe, check_section, check_sizes_made, common_sizes, declared_digests, declared_space
from .dense import DenseWidths
from .errors import clear_errors
from .folders import find_folder, visible_folders
from .identity import compatibility_id, space_id, weights_digest
from .read import fill, read_weights
from .save import SECTION

__all__ = ['Checkpoint', 'download', 'load_checkpoint_model', 'load_configured', 'read_section']

_HUB = ('hf-hub:', 'hf_hub:')
_SUFFIXES = ('.safetensors', '.pth', '.pt', '.tar', '.bin', '.ckpt')
_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model and what is known about it.

    Attributes:
        source: Where it came from.
        model: In evaluation mode; `embed(images)` gives the embedding at its active width, and `extract(width)`
            one width as a dense model.
        compatibility: Identifies the weights of all widths, to which measurements belong.
        preprocessing: How an image becomes its input.
        space: Identifies the metric space: checkpoints that share it can search each other's galleries.
        digests: Digests of its widths, as declared; '' for one that declares none, as earlier versions saved it.
    """

    source: str
    model: Slimmable | DenseWidths
    compatibility: str
    preprocessing: Preprocessing
    space: str = ''
    digests: Mapping[float, str] = field(default_factory=dict)

    @property
    def widths(self) -> tuple[float, ...]:
        """The widths at which it embeds, ascending."""
        return self.model.widths

    @property
    def embed_dims(self) -> tuple[int, ...]:
        """All sizes to which its embeddings may be cut, ascending; none where that is not known."""
        return self.model.embed_dims

    def digest(self, width: float) -> str:
        """Identifies the weights that embed at a width: as declared, else of the weights as they are now."""
        if width in self.digests:
            return self.digests[width]
        if isinstance(self.model, DenseWidths):
            return weights_digest(self.model.extract(width))
        return weights_digest(self.model, width)


def load_checkpoint_model(
    source: str | os.PathLike[str],
    width: float | None = None,
    *,
    model: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    use_ema: bool = False,
    data_config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Loads a slimmable model, single widths of one, or any timm model (its pooled features are the embedding).

    Nothing in the checkpoint is executed, and a model is returned only if every weight of it was in the checkpoint.

    `source` is one of

    - a folder in timm's local-dir layout (config.json, model.safetensors): a whole slimmable model or one width;
    - a folder of such width folders, as `save_widths` makes: all of them together;
    - a .safetensors file, with config.json beside it or `model` given;
    - a .pth.tar of timm's train.py, or any state_dict of torch.save with `model` given;
    - `hf-hub:user/name` or `hf-hub:user/name@revision`;
    - a timm model by name, with its pretrained weights.

    Ids are those that the checkpoint declares, if its weights are the declared ones (see `checkpoints.declared`, also
    for those of before), and `compatibility_id` and `space_id` of the weights where it declares none.

    Args:
        source: Where the checkpoint lies.
        width: Width to make active; None leaves the one of creation.
        model: timm's name of the model, for files that do not say it.
        model_kwargs: Arguments of `timm.create_model`, for such files.
        use_ema: Take the averaged weights of a training checkpoint.
        data_config: Preprocessing that replaces the checkpoint's, see `Preprocessing.changed`.

    Raises:
        FileNotFoundError: There is no such file or folder, or a part of it is missing.
        ValueError: It is corrupt, does not fit the model, is not known to timm, or has no such width.
        ConnectionError: It is on the Hub, but not in the cache, and there is no network.
        PermissionError: It is private on the Hub.
    """
    name = str(source).removeprefix('local-dir:')
    args: Mapping[str, Any] = {}
    section: Mapping[str, Any] = {}
    path = Path(name).expanduser()
    if name.startswith(_HUB):
        loaded, section = _load_folder(_download(name), name)
    elif find_folder(path).is_dir():
        loaded, section = _load_folder(find_folder(path), name)
    elif path.is_file() or name.endswith(_SUFFIXES) or '/' in name or os.sep in name:
        loaded, section, args = _load_file(path, model, model_kwargs or {}, use_ema)
    else:
        loaded = _load_pretrained(name, model_kwargs or {})
    if not section and not isinstance(loaded, Slimmable):
        loaded.reset_classifier(0)  # type: ignore[operator]
    identity = section.get('compatibility') or compatibility_id(loaded)
    space = declared_space(section) or space_id(loaded)
    # A folder of one width may hold a slimmable model of that one width, where plain timm has no narrower one.
    if not isinstance(loaded, Slimmable | DenseWidths) or (isinstance(loaded, Slimmable) and 'width' in section):
        loaded = DenseWidths({section.get('width', 1.0): loaded}, section.get('embed_dims', ()))
    if width is not None:
        loaded.set_width(width)
    preprocessing = _preprocessing(name, loaded, args, data_config or {})
    return Checkpoint(name, loaded.eval(), identity, preprocessing, space, declared_digests(section))


def _load_folder(folder: Path, source: str) -> tuple[nn.Module, Mapping[str, Any]]:
    if (folder / 'config.json').is_file():
        weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
        if weights is None:
            raise FileNotFoundError(f'{source!r} holds a config.json but none of {", ".join(_WEIGHTS)}.')
        return load_configured(weights)
    parts = [_load_folder(part, str(part)) for part in visible_folders(folder) if (part / 'config.json').is_file()]
    if not parts:
        raise FileNotFoundError(
            f'{source!r} holds no checkpoint: expected config.json and model.safetensors, or folders with them for '
            'the widths.'
        )
    # Of one space, also where one of them was fitted again since; before there were spaces, of one checkpoint.
    known = [{section.get(key) for _, section in parts} for key in ('space', 'compatibility')]
    widths = {section.get('width') for _, section in parts}
    if not any(len(ids) == 1 and None not in ids for ids in known) or None in widths or len(widths) != len(parts):
        raise ValueError(f'the folders in {source!r} are not the widths of one model; name one of them.')
    merged = {key: value for key, value in parts[-1][1].items() if key != 'width'}
    merged['widths'] = [section['width'] for _, section in parts]
    merged['digests'] = {name: digest for _, section in parts for name, digest in section.get('digests', {}).items()}
    sizes = common_sizes([section for _, section in parts], source)
    return DenseWidths({section['width']: part for part, section in parts}, sizes), merged


def read_section(config: Path) -> dict[str, Any]:
    """Our own section of a config.json; empty where it has none.

    Raises:
        ValueError: It is no config.
    """
    try:
        section = json.loads(config.read_text(encoding='utf-8')).get(SECTION, {})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _no_config(config, error) from error
    return check_section(section, str(config))


def load_configured(weights: Path, **changes: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """Loads a file whose folder has a config.json; returns the model and our section of the config.

    Args:
        weights: The file.
        **changes: Arguments of `timm.create_model` that replace the config's.
    """
    config = weights.with_name('config.json')
    section = read_section(config)
    try:
        pretrained_cfg, name, args = load_model_config_from_path(config.parent)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_config(config, error) from error
    model = _create(str(weights), name, {**args, **changes, 'pretrained_cfg': pretrained_cfg})
    state = read_weights(weights).state
    fill(model, state, str(weights))
    believe(section, state, str(weights))
    check_sizes_made(section, model.embed_dim if isinstance(model, Slimmable) else model.num_classes, str(config))
    return model, section


def _no_config(config: Path, error: Exception) -> ValueError:
    return ValueError(f"{str(config)!r} is no config of timm's ({error!r}); restore it, or save the model again.")


def _load_file(
    path: Path, model: str | None, model_kwargs: Mapping[str, Any], use_ema: bool
) -> tuple[nn.Module, Mapping[str, Any], Mapping[str, Any]]:
    """Loads a file; returns the model, our section of the config, and the training script's arguments."""
    if path.suffix == '.safetensors' and model is None and path.with_name('config.json').is_file():
        return *load_configured(path), {}
    weights = read_weights(path, use_ema)
    name = model or weights.args.get('model')
    if name is None:
        raise ValueError(f'{str(path)!r} does not say which model it is of: give model (timm name) and model_kwargs.')
    # As timm's train.py makes it.
    named = {'num_classes': weights.args.get('num_classes'), 'global_pool': weights.args.get('gp')}
    own = weights.args.get('model_kwargs') or {}
    created = _create(str(path), name, {**named, **own, **model_kwargs}, weights.args)
    fill(created, weights.state, str(path))
    return created, {}, weights.args


def _load_pretrained(name: str, model_kwargs: Mapping[str, Any]) -> nn.Module:
    if not timm.is_model(name.partition('.')[0]):
        raise ValueError(
            f'{name!r} is no file, no folder and no model of timm; for the Hugging Face Hub write hf-hub:user/name.'
        )
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False) if '.' in name else timm.get_pretrained_cfg(name)
    if name.startswith('sfsc_') and str(getattr(cfg, 'hf_hub_id', None)).startswith('timm/'):
        raise ValueError(
            f"{name!r} has only timm's backbone as pretrained weights, to start training from: its neck and narrow "
            'widths know nothing yet. Give a trained checkpoint.'
        )
    model = _create(name, name, {**model_kwargs, 'pretrained': True})
    declared = shipped_id(cfg.file) if getattr(cfg, 'file', None) else None
    if declared is not None and not model_kwargs and compatibility_id(model) != declared:
        raise ValueError(
            f'{name!r}: {cfg.file!r} holds other weights than the manifest beside it declares ({declared}); install '
            'sfsc-timm again.'
        )
    return model


def _create(
    source: str, name: str, arguments: dict[str, Any], train_args: Mapping[str, Any] | None = None
) -> nn.Module:
    try:
        if train_args:  # they also tell channels and size of the input
            arguments = resolve_model_input_args(name, train_args, **arguments)
            name = arguments.pop('model_name')
        model: nn.Module = timm.create_model(name, **arguments)
    # What a file says may be of any type, and timm asserts, indexes and asks for attributes without looking.
    except (AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        shown = {key: value for key, value in arguments.items() if key != 'pretrained_cfg'}
        reason = str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError) and not str(error):
            reason = 'there is no file at checkpoint_path; leave it out'
        raise ValueError(f'{source!r}: timm cannot make {name!r} with {shown}: {reason}') from error
    return model


def _preprocessing(
    name: str, model: Slimmable | DenseWidths, args: Mapping[str, Any], changes: Mapping[str, Any]
) -> Preprocessing:
    """Preprocessing by timm's rules, from the checkpoint's config, its training arguments and the caller."""
    source: Any = model.extract() if isinstance(model, DenseWidths) else model
    try:
        Preprocessing.from_pretrained_cfg(source.pretrained_cfg)
        found = Preprocessing.from_pretrained_cfg(resolve_input_data_config(source, dict(args)))
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f'{name!r} says of its preprocessing: {error}') from error
    found = found.changed(**changes)
    resolve_input_data_config(source, {'input_size': found.input_size})  # refuses what the model cannot take
    return found


def _download(source: str) -> Path:
    name, _, revision = source.split(':', 1)[1].partition('@')
    return download(name, revision or None)


def download(repo: str, revision: str | None = None) -> Path:
    """Brings config and weights of one revision from the Hugging Face Hub, or finds them in the cache.

    Returns:
        The folder in the cache.

    Raises:
        ValueError: There is no such repository or revision.
        PermissionError: The Hub wants a login.
        ConnectionError: No network, and not in the cache.
    """
    from huggingface_hub import snapshot_download

    what = f'hf-hub:{repo}' + (f'@{revision}' if revision else '')
    try:
        with clear_errors(what):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=['config.json', _WEIGHTS[0]]))
    except (ConnectionError, PermissionError):
        raise
    except OSError as error:
        raise ValueError(f'{what!r} could not be fetched from the Hugging Face Hub: {error}') from error
