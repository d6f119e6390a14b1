"""From settings to data, batches and models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.distributed as dist

from ..checkpoints import load_checkpoint_model
from ..data import (
    Batches,
    EpochSampler,
    PKSampler,
    Preprocessing,
    RetrievalData,
    ShardSampler,
    ShuffleSampler,
    StackedSampler,
    batches,
    load_data,
    make_transforms,
    preload,
)
from ..models import Slimmable, start_from
from .config import TrainConfig

__all__ = [
    'create_loaders',
    'create_model',
    'fit_model_to_input',
    'from_scratch',
    'lone_model',
    'probe',
    'read_training_data',
    'resolve_input',
]


def resolve_input(config: TrainConfig) -> Preprocessing:
    """How images are prepared, by timm's rules but for the crop: evaluation sees them whole."""
    cfg = timm.get_pretrained_cfg(config.model)
    if cfg is None:
        raise ValueError(f'model {config.model!r} is not known to timm; timm.list_models("sfsc_*") lists ours')
    names = ('img_size', 'input_size', 'mean', 'std', 'interpolation')
    return Preprocessing.from_pretrained_cfg(
        cfg.to_dict(),
        **{name: getattr(config, name) for name in names},
        in_chans=config.model_kwargs.get('in_chans'),
        crop_pct=1.0,
        crop_mode='center',
    )


def fit_model_to_input(config: TrainConfig, given: Preprocessing) -> TrainConfig:
    """Settings by which a model that is made for one size of images, as a transformer is, is made for that of `given`.

    Raises:
        ValueError: `model_kwargs` has another size.
    """
    cfg, size = timm.get_pretrained_cfg(config.model), list(given.input_size[1:])
    if cfg is None or not cfg.fixed_input_size or config.model_kwargs.get('dynamic_img_size'):
        return config
    asked = config.model_kwargs.get('img_size', size)
    if ([asked] * 2 if isinstance(asked, int) else list(asked)) != size:
        raise ValueError(f'img_size in model_kwargs must be that of the images, {size}, got {asked}; give --img-size')
    return replace(config, model_kwargs={**config.model_kwargs, 'img_size': size})


def read_training_data(config: TrainConfig, size: tuple[int, int, int], *, labelled: bool = True) -> RetrievalData:
    """Reads the data set, into memory if that is asked for; `labelled` says whether identities are to be told apart.

    Raises:
        ValueError: There is nothing to train on.
    """
    if not config.data:
        raise ValueError('data is missing: name a data set, such as glyphs; `sfsc-timm data` lists them')
    options = dict(config.data_kwargs)
    if config.data == 'glyphs' and size[1] == size[2]:
        options.setdefault('size', size[1])  # drawn as the model takes them
    data = load_data(config.data, config.data_dir, **options)
    if labelled:
        data.require_training()
    return preload(data, size[1:]) if config.preload else data


def create_loaders(
    config: TrainConfig, data: RetrievalData, given: Preprocessing, *, parts: int, own_epochs: int
) -> tuple[Batches, Batches, Batches]:
    """Batches for training, of the queries, and of the gallery.

    Args:
        config: Settings.
        data: What to serve.
        given: How images are prepared.
        parts: Batches of one training step, drawn independently of each other and served as one.
        own_epochs: In the epochs after so many, each of these batches has the same images, augmented anew.

    Raises:
        ValueError: The settings do not go together.
    """
    train_transform, eval_transform = make_transforms(data, given.suited(data), hflip=config.hflip, erase=config.reprob)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    common: dict[str, Any] = {
        'mode': given.image_mode,
        'workers': config.workers,
        'on_error': config.on_error,
        'pin_memory': torch.cuda.is_available(),
    }
    if parts > 1 and config.on_error == 'skip':
        raise ValueError(
            "on_error must be 'raise' where each width has batches of its own, which would not stay of one size; got "
            "'skip': give --recipe-kwargs own_batches=False, too"
        )
    samplers = [_sampler(config, data, world, seed) for seed in _seeds(config.seed, parts)]
    if world > 1:
        samplers = [ShardSampler(sampler, rank, world) for sampler in samplers]
    sampler = samplers[0] if parts == 1 else StackedSampler(samplers, alike_from=own_epochs)
    train = batches(data.training, train_transform, sampler=sampler, seed=config.seed + rank, **common)
    query = batches(data.query, eval_transform, **common)
    gallery = query if data.shared else batches(data.gallery, eval_transform, **common)
    return train, query, gallery


def _seeds(seed: int, parts: int) -> list[int]:
    """A seed for each part; the only one, or the last of several, is the given one."""
    others = np.random.SeedSequence(seed).generate_state(parts - 1).tolist() if parts > 1 else []
    return [*others, seed]


def _sampler(config: TrainConfig, data: RetrievalData, world: int, seed: int) -> EpochSampler:
    size = config.batch_size * world
    if not config.num_instances:
        return ShuffleSampler(len(data.training), size, seed)
    if config.batch_size % config.num_instances:
        raise ValueError(
            f'batch_size must be a multiple of num_instances, {config.num_instances}, got {config.batch_size}'
        )
    identities = [sample.identity for sample in data.training]
    return PKSampler(identities, size // config.num_instances, config.num_instances, seed)


def create_model(config: TrainConfig, num_classes: int, given: Preprocessing, **changes: Any) -> Slimmable:
    """The slimmable model.

    Args:
        config: Settings.
        num_classes: Training identities.
        given: How images are prepared.
        **changes: Arguments in place of those in `config.model_kwargs`.

    Raises:
        ValueError: It is not one of ours, or timm cannot make it.
        FileNotFoundError: There is no file at `checkpoint_path`, which timm would read weights from.
    """
    rates = {'drop_rate': config.drop, 'drop_path_rate': config.drop_path}
    arguments = {
        'num_classes': num_classes,
        'in_chans': given.channels,
        **{name: rate for name, rate in rates.items() if rate is not None},
        **config.model_kwargs,
        **changes,
    }
    weights = arguments.get('checkpoint_path')
    if weights and not Path(str(weights)).is_file():
        raise FileNotFoundError(
            f'checkpoint_path in model_kwargs must be a file of weights, got {weights!r}: there is no such file; '
            'correct it, or give --initial-checkpoint'
        )
    try:
        model = timm.create_model(config.model, pretrained=config.pretrained, **arguments)
    # timm asserts, looks up and asks for attributes of what it is given without looking.
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = f'{type(error).__name__}: {error}' if isinstance(error, LookupError) else str(error)
        raise ValueError(
            f'timm cannot make {config.model!r} with {arguments}: {reason or type(error).__name__}; change model_kwargs'
        ) from error
    if not isinstance(model, Slimmable):
        raise ValueError(f"model must be slimmable, one of timm.list_models('sfsc_*'), got {config.model!r}")
    if config.initial_checkpoint:
        _start_from(model, config.initial_checkpoint, config)
    return model


def probe(config: TrainConfig, given: Preprocessing) -> Slimmable:
    """The model without memory for its weights, to see early that it can be made; raises what `create_model` does."""
    model = create_model(from_scratch(config), 2, given, device='meta')
    if not model.embed_dim:
        raise ValueError(
            'embed_dim must be at least 1 in training, got 0: without a neck there is no metric space to train; leave '
            'it out of model_kwargs'
        )
    if config.torchcompile and config.torchcompile not in torch.compiler.list_backends(None):
        known = ', '.join(torch.compiler.list_backends())
        raise ValueError(f'torchcompile must be one of {known}, got {config.torchcompile!r}')
    return model


def lone_model(config: TrainConfig, width: float, num_classes: int, given: Preprocessing) -> Slimmable:
    """A network of its own, as narrow as `width`, by timm's own initialisation or from the slice of the given start."""
    lone = {'widths': (1.0,), 'full_width': width}
    if not config.pretrained and not config.initial_checkpoint:
        return create_model(config, num_classes, given, **lone)
    whole = create_model(config, num_classes, given)
    whole.set_width(width)
    model = create_model(from_scratch(config), num_classes, given, **lone)
    start_from(model, whole)
    return model


def from_scratch(config: TrainConfig) -> TrainConfig:
    """The settings without weights to start from."""
    return replace(config, pretrained=False, initial_checkpoint=None)


def _start_from(model: Slimmable, source: str, config: TrainConfig) -> None:
    """Takes over the weights of a checkpoint, but for a classifier of another number of classes."""
    loaded: Any = load_checkpoint_model(source, model=config.model, model_kwargs=config.model_kwargs).model
    if not isinstance(loaded, Slimmable):
        raise ValueError(f'initial_checkpoint must hold a slimmable model with all its widths, got {source!r}')
    state, own = loaded.state_dict(), model.state_dict()
    different = {k for k in own.keys() | state.keys() if _shape(own, k) != _shape(state, k)}
    classifier = {k for k in own.keys() | state.keys() if k.startswith('fc.')}
    if different - classifier:
        raise ValueError(f'initial_checkpoint {source!r} does not fit: {sorted(different - classifier)[:3]} differ')
    fresh = classifier if different else set()  # other classes: it begins anew
    model.load_state_dict({k: own[k] if k in fresh else state[k] for k in own})


def _shape(state: dict[str, torch.Tensor], key: str) -> Any:
    return state[key].shape if key in state else None
