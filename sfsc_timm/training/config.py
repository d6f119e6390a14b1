"""Settings of a training run: one definition for the command line, YAML files and checkpoints."""

# ruff: noqa: RUF009  `_option` makes a field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .._files import replacing

__all__ = ['Fit', 'TrainConfig', 'read_config', 'write_config']


def _option(default: Any, text: str, group: str, **more: Any) -> Any:
    """A setting: default, explanation, and the group of `--help` that it belongs to."""
    metadata = {'help': text, 'group': group, **more}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Fit:
    """How to optimise; names and meanings are those of timm's train.py.

    Attributes:
        epochs: Passes over the training set.
        opt: Optimizer, by timm's name.
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: On weights; norm parameters and biases have none (timm's rule).
        layer_decay: Factor on the learning rate from one depth to the one below, None for one rate.
        sched: Schedule of the learning rate, by timm's name.
        warmup_epochs: Epochs of linear warm-up.
        warmup_lr: Where it begins.
        min_lr: Where the schedule ends.
        clip_grad: Bound on the gradient, None for no clipping.
        clip_mode: 'norm', 'value' or 'agc'.
        grad_accum_steps: Batches of one optimizer step.
        amp: Mixed precision.
        amp_dtype: 'float16' or 'bfloat16'.
        model_ema: Keep a moving average of the weights.
        model_ema_decay: Its decay per step.
        model_ema_warmup: Whether the decay grows to that value.
    """

    epochs: int = _option(20, 'passes over the training images', 'schedule')
    opt: str = _option('sgd', "optimizer, by timm's name", 'optimizer')
    lr: float = _option(0.1, 'peak learning rate', 'optimizer')
    momentum: float = _option(0.9, 'of SGD', 'optimizer')
    weight_decay: float = _option(5e-4, 'on weights, not on norms and biases', 'optimizer')
    layer_decay: float | None = _option(None, 'factor on the rate from one depth to the one below', 'optimizer')
    sched: str = _option('cosine', "schedule of the rate, by timm's name", 'schedule')
    warmup_epochs: int = _option(1, 'epochs of linear warm-up', 'schedule')
    warmup_lr: float = _option(1e-5, 'rate it begins with', 'schedule')
    min_lr: float = _option(0.0, 'rate the schedule ends with', 'schedule')
    clip_grad: float | None = _option(None, 'bound on the gradient', 'optimizer')
    clip_mode: str = _option('norm', 'what it bounds', 'optimizer', choices=('norm', 'value', 'agc'))
    grad_accum_steps: int = _option(1, 'batches of one optimizer step', 'optimizer')
    amp: bool = _option(False, 'mixed precision', 'running')
    amp_dtype: str = _option('float16', 'its type', 'running', choices=('float16', 'bfloat16'))
    model_ema: bool = _option(False, 'keep a moving average of the weights, and evaluate it', 'optimizer')
    model_ema_decay: float = _option(0.9998, 'its decay per step', 'optimizer')
    model_ema_warmup: bool = _option(False, 'let the decay grow to that value', 'optimizer')

    def __post_init__(self) -> None:
        _check(self)


@dataclass
class TrainConfig(Fit):
    """A whole run. See `sfsc-timm train --help`."""

    recipe: str = _option('sfsc', 'how the widths are trained, see above', 'recipe')
    recipe_kwargs: dict[str, Any] = _option({}, 'its options', 'recipe')
    smoothing: float = _option(0.0, 'label smoothing', 'recipe')
    triplet: float = _option(0.0, "factor of a triplet loss on each width's embeddings", 'recipe')
    margin: float = _option(0.3, 'its margin', 'recipe')
    data: str = _option('', 'data set; `sfsc-timm data` lists them', 'data')
    data_dir: str | None = _option(None, 'where it lies', 'data')
    data_kwargs: dict[str, Any] = _option({}, 'options of its reader', 'data')
    on_error: str = _option('raise', 'at an unreadable image', 'data', choices=('raise', 'skip'))
    preload: bool = _option(False, 'decode once, keep in memory, and augment there (small images)', 'data')
    hflip: float | None = _option(None, 'probability of a mirrored image (0.5, and 0 from memory)', 'data')
    reprob: float = _option(0.0, 'probability of random erasing', 'data')
    batch_size: int = _option(128, 'images of a step, on each process', 'data', short='b')
    num_instances: int = _option(0, 'images of an identity in a batch (P x K); 0 to shuffle all', 'data')
    model: str = _option('sfsc_resnet50', "model, by timm's name", 'model')
    model_kwargs: dict[str, Any] = _option({}, 'its arguments, such as widths=(0.5,1.0) embed_dim=128', 'model')
    pretrained: bool = _option(False, 'start from pretrained weights; ImageNet: sfsc_resnet50.a1_in1k', 'model')
    initial_checkpoint: str | None = _option(None, 'start from the weights of this checkpoint', 'model')
    img_size: int | None = _option(None, 'side of the images in pixels', 'model')
    input_size: list[int] | None = _option(None, 'channels, height and width', 'model', count=3)
    mean: list[float] | None = _option(None, 'of each channel, in [0, 1]', 'model', count='+')
    std: list[float] | None = _option(None, 'of each channel, in [0, 1]', 'model', count='+')
    interpolation: str | None = _option(None, 'how images are resized', 'model')
    drop: float | None = _option(None, 'dropout', 'model')
    drop_path: float | None = _option(None, 'stochastic depth', 'model')
    grad_checkpointing: bool = _option(False, 'recompute blocks in backward', 'running')
    channels_last: bool = _option(False, 'memory layout', 'running')
    torchcompile: str | None = _option(None, 'compile the model by this backend, such as inductor', 'running')
    workers: int = _option(0, 'processes that read images', 'running', short='j', runtime=True)
    threads: int = _option(0, 'CPU threads, 0 for all cores', 'running', runtime=True)
    device: str | None = _option(None, 'cpu, cuda, ... (cuda where there is one)', 'running', runtime=True)
    seed: int = _option(42, 'of weights, data order, augmentation and projection', 'running')
    eval_interval: int = _option(5, 'epochs between evaluations, 0 for one at the end', 'evaluation')
    eval_metric: str = _option(
        'mean', 'of the matrix, decides which checkpoint is best', 'evaluation', choices=('mean', 'diagonal', 'cross')
    )
    output: str = _option('output/train', 'folder for runs', 'evaluation', runtime=True)
    experiment: str = _option('', "name of the run's folder (time, recipe and model)", 'evaluation', runtime=True)
    checkpoint_interval: int = _option(0, 'steps between resumable states beside those after epochs', 'evaluation')
    log_tensorboard: bool = _option(False, 'write curves for TensorBoard', 'evaluation', runtime=True)
    log_wandb: bool = _option(False, 'send curves to Weights & Biases', 'evaluation', runtime=True)
    wandb_project: str = _option('sfsc-timm', 'its project there', 'evaluation', runtime=True)


def _check(config: Fit) -> None:
    """Raises a ValueError for a setting out of its range."""
    positive = ('epochs', 'lr', 'grad_accum_steps', 'batch_size')
    at_least_zero = {'weight_decay', 'warmup_epochs', 'eval_interval', 'num_instances', 'checkpoint_interval', 'seed'}
    at_least_zero |= {'triplet', 'margin', 'workers', 'threads', 'min_lr', 'warmup_lr'}
    shares = ('smoothing', 'reprob', 'model_ema_decay')
    for name, value in asdict(config).items():
        if name in positive and not value > 0:
            raise ValueError(f'{name} must be positive, got {value}')
        if name in at_least_zero and not value >= 0:
            raise ValueError(f'{name} must be >= 0, got {value}')
        if name in shares and not 0 <= value <= 1:
            raise ValueError(f'{name} must be in [0, 1], got {value}')
    for entry in fields(config):
        choices = entry.metadata.get('choices')
        if choices and getattr(config, entry.name) not in choices:
            raise ValueError(f'{entry.name} must be one of {choices}, got {getattr(config, entry.name)!r}')
    if config.warmup_epochs >= config.epochs and config.warmup_epochs:
        raise ValueError(f'warmup_epochs must be less than epochs, {config.epochs}, got {config.warmup_epochs}')


def read_config(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file, such as the args.yaml of a run.

    Args:
        path: The file; its keys are the names of the flags, with underscores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no mapping, or an unknown setting.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no settings at {str(path)!r}: there is no such file.')
    try:
        found = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except yaml.YAMLError as error:
        raise ValueError(f'{str(path)!r} is no YAML: {error}') from error
    if not isinstance(found, Mapping):
        raise ValueError(f'{str(path)!r} must hold a mapping of settings, got a {type(found).__name__}.')
    known = {entry.name for entry in fields(TrainConfig)}
    if unknown := sorted(set(map(str, found)) - known):
        raise ValueError(f'{str(path)!r} holds unknown settings: {", ".join(unknown)}; known are {sorted(known)}.')
    # YAML 1.1 reads 1e-4 as text.
    numbers = {entry.name for entry in fields(TrainConfig) if str(entry.type).startswith('float')}
    return {k: float(v) if k in numbers and isinstance(v, str) else v for k, v in found.items()}


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes all settings as YAML; the file is there whole or not at all."""
    import yaml

    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False), encoding='utf-8')


def _plain(value: Any) -> Any:
    """Tuples as lists: what YAML knows."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
