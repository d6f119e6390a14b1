"""Settings of a training run: one definition for the command line, YAML files and checkpoints."""

# ruff: noqa: RUF009  `setting` makes a field

from __future__ import annotations

from dataclasses import Field, asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from timm.optim import list_optimizers

from .._files import replacing
from .._settings import check_settings, check_value, setting
from .._yaml import read_yaml

__all__ = ['Fit', 'TrainConfig', 'read_config', 'write_config']

# Those of timm that go by steps, which 'plateau' does not.
SCHEDULES = ('cosine', 'tanh', 'step', 'multistep', 'poly', 'wsd', 'rsqrt', 'constant', 'none')


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

    epochs: int = setting(20, 'passes over the training images', 'schedule', within='[1, inf)')
    opt: str = setting('sgd', "optimizer, by timm's name", 'optimizer')
    lr: float = setting(0.1, 'peak learning rate', 'optimizer', within='(0, inf)')
    momentum: float = setting(0.9, 'momentum of SGD', 'optimizer', within='[0, 1)')
    weight_decay: float = setting(5e-4, 'weight decay, but not of norms and biases', 'optimizer', within='[0, inf)')
    layer_decay: float | None = setting(
        None, 'factor on the learning rate from one depth to the one below', 'optimizer', within='(0, 1]'
    )
    sched: str = setting('cosine', 'schedule of the learning rate', 'schedule', choices=SCHEDULES)
    warmup_epochs: int = setting(1, 'epochs of linear warm-up, fewer than all', 'schedule', within='[0, inf)')
    warmup_lr: float = setting(1e-5, 'learning rate that the warm-up begins with', 'schedule', within='[0, inf)')
    min_lr: float = setting(0.0, 'learning rate that the schedule ends with', 'schedule', within='[0, inf)')
    clip_grad: float | None = setting(None, 'bound on the gradient', 'optimizer', within='(0, inf)')
    clip_mode: str = setting('norm', 'what --clip-grad bounds', 'optimizer', choices=('norm', 'value', 'agc'))
    grad_accum_steps: int = setting(1, 'batches of one optimizer step', 'optimizer', within='[1, inf)')
    amp: bool = setting(False, 'mixed precision', 'running')
    amp_dtype: str = setting('float16', 'type of --amp', 'running', choices=('float16', 'bfloat16'))
    model_ema: bool = setting(False, 'keep a moving average of the weights, and evaluate it', 'optimizer')
    model_ema_decay: float = setting(0.9998, 'decay of the moving average per step', 'optimizer', within='[0, 1]')
    model_ema_warmup: bool = setting(False, 'let --model-ema-decay grow to its value', 'optimizer')

    def __post_init__(self) -> None:
        check_settings(self)
        _check_optimizer(self.opt)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError(
                f'warmup_epochs must be less than epochs, {self.epochs}, got {self.warmup_epochs}; 0 is for no warm-up'
            )


@dataclass
class TrainConfig(Fit):
    """A whole run. See `sfsc-timm train --help`.

    Raises:
        ValueError: A setting is of another type than its own, out of its range, or does not go with another.
    """

    recipe: str = setting('sfsc', 'how the widths are trained, see above', 'recipe')
    recipe_kwargs: dict[str, Any] = setting({}, 'options of the recipe', 'recipe')
    smoothing: float = setting(0.0, 'label smoothing', 'recipe', within='[0, 1)')
    triplet: float = setting(0.0, "factor of a triplet loss on each width's embeddings", 'recipe', within='[0, inf)')
    margin: float = setting(0.3, 'margin of the triplet loss', 'recipe', within='[0, inf)')
    data: str = setting('', 'data set; `sfsc-timm data` lists them', 'data')
    data_dir: str | None = setting(None, 'folder or file of the data set', 'data', runtime=True)
    data_kwargs: dict[str, Any] = setting({}, 'options of the reader of the data set', 'data')
    on_error: str = setting('raise', 'what to do at an unreadable image', 'data', choices=('raise', 'skip'))
    preload: bool = setting(False, 'decode once, keep in memory, and augment there (small images)', 'data')
    hflip: float | None = setting(
        None, 'probability of a mirrored image (0.5, and 0 from memory)', 'data', within='[0, 1]'
    )
    reprob: float = setting(0.0, 'probability of random erasing', 'data', within='[0, 1]')
    batch_size: int = setting(128, 'images of a step, on each process', 'data', short='b', within='[1, inf)')
    num_instances: int = setting(
        0, 'images of an identity in a batch (P x K); 0 to shuffle all', 'data', within='[0, inf)'
    )
    model: str = setting('sfsc_resnet50', "model, by timm's name", 'model')
    model_kwargs: dict[str, Any] = setting({}, 'arguments of the model: widths=(0.5,1.0) embed_dim=128 ...', 'model')
    pretrained: bool = setting(False, 'start from pretrained weights; ImageNet: sfsc_resnet50.a1_in1k', 'model')
    initial_checkpoint: str | None = setting(None, 'start from the weights of this checkpoint', 'model')
    img_size: int | None = setting(None, 'side of the images in pixels', 'model', within='[1, 8192]')
    input_size: list[int] | None = setting(None, 'channels, height and width', 'model', count=3, within='[1, 8192]')
    mean: list[float] | None = setting(None, 'mean of each channel', 'model', count='+', within='[0, 1]')
    std: list[float] | None = setting(None, 'deviation of each channel', 'model', count='+', within='[0.001, 1]')
    interpolation: str | None = setting(None, 'how images are resized', 'model')
    drop: float | None = setting(None, 'rate of dropout', 'model', within='[0, 1)')
    drop_path: float | None = setting(None, 'rate of stochastic depth', 'model', within='[0, 1)')
    grad_checkpointing: bool = setting(False, 'recompute blocks in backward', 'running')
    channels_last: bool = setting(False, 'memory layout that some processors prefer', 'running')
    torchcompile: str | None = setting(
        None, 'compile training steps by this backend, such as inductor; evaluation runs eager', 'running'
    )
    workers: int = setting(0, 'processes that read images', 'running', short='j', runtime=True, within='[0, 1024]')
    threads: int = setting(0, 'CPU threads, 0 for all cores', 'running', runtime=True, within='[0, 1024]')
    device: str | None = setting(None, 'device: cpu, cuda, ... (cuda where there is one)', 'running', runtime=True)
    seed: int = setting(42, 'seed of weights, data and projection', 'running', within='[0, 4294967295]')
    eval_interval: int = setting(5, 'epochs between evaluations, 0 for one at the end', 'evaluation', within='[0, inf)')
    eval_metric: str = setting(
        'mean',
        'mean of the matrix by which a checkpoint is best',
        'evaluation',
        choices=('mean', 'diagonal', 'cross'),
    )
    output: str = setting('output/train', 'folder for runs', 'evaluation', runtime=True)
    experiment: str = setting('', "name of the run's folder (time, recipe and model)", 'evaluation', runtime=True)
    checkpoint_interval: int = setting(
        0, 'steps between resumable states beside those after epochs', 'evaluation', runtime=True, within='[0, inf)'
    )
    log_tensorboard: bool = setting(False, 'write curves for TensorBoard', 'evaluation', runtime=True)
    log_wandb: bool = setting(False, 'send curves to Weights & Biases', 'evaluation', runtime=True)
    wandb_project: str = setting('sfsc-timm', 'project of Weights & Biases', 'evaluation', runtime=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.initial_checkpoint:
            raise ValueError(
                f'pretrained must be left out beside initial_checkpoint, got both, {self.initial_checkpoint!r}: that '
                'holds all weights'
            )


def _check_optimizer(name: str) -> None:
    known = list_optimizers()
    if name.lower().removeprefix('lookahead_') not in known:
        near = get_close_matches(name.lower(), known, n=3)
        hint = f'did you mean {" or ".join(near)}? ' if near else ''
        raise ValueError(f'opt must be an optimizer of timm, got {name!r}; {hint}timm.optim.list_optimizers() has all')


def read_config(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file, such as the args.yaml of a run.

    Args:
        path: The file; its keys are the names of the flags, with underscores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no mapping, an unknown setting, or a value of another type or range.
    """
    found = read_yaml(path)
    known = {entry.name: entry for entry in fields(TrainConfig)}
    if unknown := sorted(set(map(str, found)) - known.keys()):
        near = get_close_matches(unknown[0], known, n=3)
        hint = f'did you mean {" or ".join(near)}?' if near else f'known are {", ".join(sorted(known))}'
        raise ValueError(f'{str(path)!r} holds unknown settings: {", ".join(unknown)}; {hint}')
    try:
        return {name: check_value(known[name], _as_number(known[name], value)) for name, value in found.items()}
    except ValueError as error:
        raise ValueError(f'{str(path)!r}: {error}') from error


def _as_number(entry: Field[Any], value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text."""
    if isinstance(value, str) and str(entry.type).startswith('float'):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes all settings as YAML; the file is there whole or not at all."""
    import yaml

    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False), encoding='utf-8')


def _plain(value: Any) -> Any:
    """Tuples as lists: what YAML knows."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
