"""Joint training by timm's unmodified train.py.

Importing this module turns timm's classification task into `sfsc_timm.tasks.SFSCTask`:

    python train.py --device-modules sfsc_timm sfsc_timm.timm_train \
        --model sfsc_resnet50 --data-dir images --num-classes 100 --input-size 3 224 224

With `--device-modules sfsc_timm` alone train.py fine-tunes the active width (`--model-kwargs width=0.5`) as if it were
a model of its own. That changes the shared weights under the other widths, weight decay also shrinks what the active
width does not use, and the other widths' normalisation stays behind: the widths are no longer compatible.

Options come from a YAML file named by the environment variable SFSC_TIMM_CONFIG. Its keys are those of `SFSCTask`:
criterion, criterion_kwargs, aggregation, scope, kl_annealing_steps, size_weight, seed. Training output, validation, the
moving average's validation and the best checkpoint are those of the width of creation (`--model-kwargs width=0.5`,
default 1.0) and of the largest embedding size; checkpoints hold all widths. `--resume` continues the projection's
random orders, too.

train.py's flags in joint training; those that are not named work as for any other model.

| Flags | Joint training |
|-|-|
| --model-kwargs width=W widths=(...) embed_dims=(...) | works |
| --smoothing | works: label smoothing of every width's loss |
| --mixup --cutmix --mixup-off-epoch | works: every width's loss takes soft targets |
| --aug-splits | works without --jsd-loss |
| --drop --drop-path | works: each width draws its own |
| --grad-accum-steps | works: per width, `.grad` is the projection of what has accumulated |
| --clip-grad --clip-mode | works: clips the projected gradient; agc leaves out the classifier |
| --amp --amp-dtype | works |
| --model-dtype | works |
| --channels-last | works |
| --grad-checkpointing | works |
| --torchcompile | works: one graph per width |
| --model-ema --model-ema-warmup | works |
| --layer-decay | works |
| --opt --sched --lr --weight-decay | works, but for optimizers of second order |
| --resume --no-resume-opt --initial-checkpoint | works |
| --train-img-sizes --variable-batch-loss-scale | works |
| --dist-bn --no-ddp-bb | works |
| --opt adahessian | refused: the projected gradient has no graph |
| --jsd-loss | refused: its loss is not a sub-model's |
| --bce-loss | refused: its loss is not a sub-model's |
| --kd-model-name | refused: distillation has a task of its own |
| --torchscript | refused: a scripted model is one width |
| --split-bn | refused: it replaces the widths' normalisation |
| --sync-bn | refused: it cannot convert the widths' normalisation |
| --naflex-loader | refused: the models take images, not patches |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm.task
import yaml
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from ._private import arguments_of_train_py
from .tasks import SFSCTask

__all__ = ['CONFIG_VARIABLE', 'check_flags', 'create_task', 'load_options', 'turn_on']

CONFIG_VARIABLE = 'SFSC_TIMM_CONFIG'

_OPTIONS = ('criterion', 'criterion_kwargs', 'aggregation', 'scope', 'kl_annealing_steps', 'size_weight', 'seed')

_WAY_OUT = 'leave it out, or leave sfsc_timm.timm_train out of --device-modules'

# Value of train.py's namespace -> why joint training refuses it.
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    '--opt adahessian': (lambda args: args.get('opt') == 'adahessian', 'the projected gradient has no graph'),
    '--jsd-loss': (lambda args: args.get('jsd_loss'), "its loss is not a sub-model's"),
    '--bce-loss': (lambda args: args.get('bce_loss'), "its loss is not a sub-model's"),
    '--kd-model-name': (lambda args: args.get('kd_model_name'), 'distillation has a task of its own'),
    '--torchscript': (lambda args: args.get('torchscript'), 'a scripted model is one width'),
    '--split-bn': (lambda args: args.get('split_bn'), "it replaces the widths' normalisation"),
    '--sync-bn': (lambda args: args.get('sync_bn'), "it cannot convert the widths' normalisation"),
    '--naflex-loader': (lambda args: args.get('naflex_loader'), 'the models take images, not patches'),
}


def check_flags(args: dict[str, Any]) -> None:
    """Refuses flags of train.py under which widths cannot be trained jointly.

    Args:
        args: train.py's parsed arguments, by name.

    Raises:
        ValueError: If there is one; it is named.
    """
    for flag, (is_given, reason) in _REFUSED.items():
        if is_given(args):
            raise ValueError(f'{flag} does not go with joint training of all widths: {reason}; {_WAY_OUT}')


def load_options(path: str | None) -> dict[str, Any]:
    """Options for `SFSCTask` from a YAML file.

    Args:
        path: The file; None or '' for no options.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold a mapping, or an unknown option.
    """
    if not path:
        return {}
    if not Path(path).is_file():
        raise FileNotFoundError(f'{CONFIG_VARIABLE} must name a YAML file, got {path!r}, which does not exist')
    options = yaml.safe_load(Path(path).read_text(encoding='utf-8')) or {}
    if not isinstance(options, dict):
        raise ValueError(f'{path} must hold a mapping with keys of {_OPTIONS}, got a {type(options).__name__}')
    if unknown := sorted(map(str, set(options) - set(_OPTIONS))):
        raise ValueError(f'{path} may hold the options {_OPTIONS}, got {unknown}')
    return options


def create_task(
    model: nn.Module,
    criterion: Any = None,
    criterion_kwargs: dict[str, Any] | None = None,
    device: Any = None,
    dtype: Any = None,
    verbose: bool = True,
) -> SFSCTask:
    """Makes a `SFSCTask` from what train.py gives to its classification task.

    Args:
        model: Slimmable model.
        criterion: timm's cross-entropy, of which only the label smoothing is taken over; None for `criterion_kwargs`.
        criterion_kwargs: Options of `timm.loss.create_classification_loss`.
        device: Device of the task.
        dtype: Type of the task.
        verbose: Log what is trained.

    Raises:
        ValueError: If the model is not slimmable or the loss is not a cross-entropy.
        FileNotFoundError: If the environment names a configuration that does not exist.
    """
    smoothing = _smoothing_of_kwargs(criterion_kwargs or {}) if criterion is None else _smoothing_of(criterion)
    options = load_options(os.environ.get(CONFIG_VARIABLE))
    own = {'label_smoothing': smoothing, **(options.pop('criterion_kwargs', None) or {})}
    return SFSCTask(model, criterion_kwargs=own, device=device, dtype=dtype, verbose=verbose, **options)


def turn_on() -> None:
    """Makes `timm.task.ClassificationTask(...)` return a `SFSCTask`, and timm's other tasks refuse.

    train.py has bound the class by its name before it imports this module, so the class itself has to change. What its
    `__new__` returns is no instance of it, so its own `__init__` is left out.
    """
    timm.task.ClassificationTask.__new__ = staticmethod(_new)
    for name in ('LogitDistillationTask', 'FeatureDistillationTask', 'TokenDistillationTask'):
        getattr(timm.task, name).__new__ = staticmethod(_refuse)
    given = arguments_of_train_py()
    if given is not None:
        check_flags(given)


def _new(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
    if cls is not timm.task.ClassificationTask:
        return _refuse(cls)
    return create_task(*args, **kwargs)


def _refuse(cls: type[Any], *_args: Any, **_kwargs: Any) -> Any:
    raise ValueError(f'joint training of all widths is a ClassificationTask, got a {cls.__name__}; {_WAY_OUT}')


def _smoothing_of(criterion: Any) -> float:
    if isinstance(criterion, LabelSmoothingCrossEntropy):
        return float(criterion.smoothing)
    if isinstance(criterion, SoftTargetCrossEntropy):
        return 0.0  # it is in the targets
    if isinstance(criterion, nn.CrossEntropyLoss) and criterion.weight is None:
        return float(criterion.label_smoothing)
    raise ValueError(
        f'the loss must be a cross-entropy without class weights, got {type(criterion).__name__} (--bce-loss, '
        f'--jsd-loss): the loss of joint training is set in the file named by {CONFIG_VARIABLE}'
    )


def _smoothing_of_kwargs(kwargs: dict[str, Any]) -> float:
    changed = {key: value for key, value in kwargs.items() if key not in ('smoothing', 'soft_targets')}
    if changed.pop('loss_type', None) not in (None, 'ce') or changed.get('class_weight') is not None:
        raise ValueError(
            f'the loss must be a cross-entropy without class weights, got {kwargs}: the loss of joint training is set '
            f'in the file named by {CONFIG_VARIABLE}'
        )
    return 0.0 if kwargs.get('soft_targets') else float(kwargs.get('smoothing', 0.0))


turn_on()
