"""Stand-in for timm's train.py: the same calls of the task in the same order, with the flags that reach the task.

It binds ClassificationTask by name before it imports `--device-modules`, as train.py does.
"""

from __future__ import annotations

import argparse
import importlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import yaml
from timm import utils
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import ClassificationTask, LogitDistillationTask, load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import NativeScaler
from torch import nn

FLOATS = {
    'lr': 0.05, 'momentum': 0.9, 'weight-decay': 2e-5, 'smoothing': 0.1, 'mixup': 0.0, 'cutmix': 0.0, 'drop': 0.0,
    'drop-path': None, 'clip-grad': None, 'layer-decay': None, 'model-ema-decay': 0.99, 'warmup-epochs': 0.0,
}  # fmt: skip
INTS = {
    'batch-size': 4, 'epochs': 1, 'num-classes': 3, 'grad-accum-steps': 1, 'mixup-off-epoch': 0, 'workers': 0,
    'log-interval': 1,
}  # fmt: skip
STRINGS = {
    'data-dir': '', 'model': '', 'opt': 'sgd', 'sched': 'cosine', 'device': 'cpu', 'clip-mode': 'norm',
    'amp-dtype': 'float16', 'model-dtype': None, 'torchcompile': None, 'resume': '', 'initial-checkpoint': '',
    'output': '', 'experiment': '', 'kd-model-name': None,
}  # fmt: skip
SWITCHES = (
    'amp', 'channels-last', 'grad-checkpointing', 'model-ema', 'model-ema-warmup', 'no-resume-opt', 'no-prefetcher',
    'jsd-loss', 'bce-loss', 'torchscript', 'split-bn', 'sync-bn', 'naflex-loader',
)  # fmt: skip


def _parse_args() -> tuple[argparse.Namespace, str]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for kind, options in ((float, FLOATS), (int, INTS), (str, STRINGS)):
        for name, default in options.items():
            parser.add_argument(f'--{name}', type=kind, default=default)
    for name in SWITCHES:
        parser.add_argument(f'--{name}', action='store_true')
    parser.add_argument('--device-modules', nargs='+', default=[])
    parser.add_argument('--input-size', nargs=3, type=int)
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=utils.ParseKwargs)
    args = parser.parse_args()
    return args, yaml.safe_dump(vars(args))


def main() -> None:
    utils.setup_default_logging()
    args, _ = _parse_args()
    for module in args.device_modules:
        importlib.import_module(module)
    utils.random_seed(42, 0)
    device = torch.device(args.device)
    dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    model = create_model(
        args.model,
        num_classes=args.num_classes,
        drop_rate=args.drop,
        drop_path_rate=args.drop_path,
        scriptable=args.torchscript,
        checkpoint_path=args.initial_checkpoint,
        **args.model_kwargs,
    )
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    config = resolve_data_config(vars(args), model=model)
    model.to(device=device, dtype=dtype)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if args.torchscript:
        model = torch.jit.script(model)
    train(args, model, config, device, dtype)


def create_task(
    args: argparse.Namespace, model: nn.Module, device: torch.device, dtype: torch.dtype | None
) -> nn.Module:
    if args.jsd_loss:
        loss = JsdCrossEntropy()
    elif args.bce_loss:
        loss = BinaryCrossEntropy()
    elif args.mixup > 0 or args.cutmix > 0:
        loss = SoftTargetCrossEntropy()
    else:
        loss = LabelSmoothingCrossEntropy(args.smoothing) if args.smoothing else nn.CrossEntropyLoss()
    if args.kd_model_name is not None:
        return LogitDistillationTask(student_model=model, teacher_model=args.kd_model_name, criterion=loss)
    return ClassificationTask(model=model, criterion=loss, device=device, dtype=dtype, verbose=True)


def train(
    args: argparse.Namespace, model: nn.Module, config: dict, device: torch.device, dtype: torch.dtype | None
) -> None:
    autocast = partial(torch.autocast, device.type, getattr(torch, args.amp_dtype)) if args.amp else nullcontext
    scaler = NativeScaler(device.type) if args.amp and args.amp_dtype == 'float16' else None
    loaders = [
        create_loader(
            create_dataset('', root=args.data_dir, split=split, is_training=training, batch_size=args.batch_size),
            input_size=config['input_size'],
            batch_size=args.batch_size,
            is_training=training,
            num_workers=0,
            device=device,
            use_prefetcher=False,
        )
        for split, training in (('train', True), ('validation', False))
    ]
    task = create_task(args, model, device, dtype)
    optimizer = create_optimizer_v2(task.get_trainable_module(), **optimizer_kwargs(cfg=args))
    start = 0
    if args.resume:
        unwanted = {'optimizer': None, 'loss_scaler': None}
        wanted = unwanted if args.no_resume_opt else {'optimizer': optimizer, 'loss_scaler': scaler}
        start = resume_task_checkpoint(task, args.resume, **wanted)
    if args.model_ema:
        task.setup_ema(decay=args.model_ema_decay, use_warmup=args.model_ema_warmup, device=None)
        if args.resume:
            load_task_ema_checkpoint(task, args.resume)
    eval_model = task.get_eval_model()
    if args.torchcompile:
        task.compile(backend=args.torchcompile, mode=None)
        eval_model = task.get_eval_model()
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=None)
    folder = utils.get_outdir(args.output, args.experiment)
    saver = utils.CheckpointSaver(
        model=task.get_trainable_module(), optimizer=optimizer, args=args, amp_scaler=scaler, checkpoint_dir=folder,
        recovery_dir=folder, task=task,
    )  # fmt: skip
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=len(loaders[0]))
    for epoch in range(start, epochs):
        loss = train_one_epoch(args, epoch, task, loaders[0], optimizer, scaler, autocast, dtype)
        top1 = validate(eval_model, loaders[1], autocast, dtype)
        if task.has_ema():
            top1 = validate(task.get_eval_model(ema=True), loaders[1], autocast, dtype)
        utils.update_summary(epoch, {'loss': loss}, {'top1': top1}, Path(folder) / 'summary.csv', write_header=True)
        saver.save_checkpoint(epoch, metric=top1)
        scheduler.step(epoch + 1)


def train_one_epoch(args, epoch, task, loader, optimizer, scaler, autocast, dtype) -> float:
    mixup = None
    if args.mixup > 0 or args.cutmix > 0:
        mixup = Mixup(args.mixup, args.cutmix, label_smoothing=args.smoothing, num_classes=args.num_classes)
        mixup.mixup_enabled = not (args.mixup_off_epoch and epoch >= args.mixup_off_epoch)
    meter = utils.AverageMeter()
    task.get_trainable_module().train()
    optimizer.zero_grad()
    for index, (given, labels) in enumerate(loader):
        images, target = given.to(dtype=dtype), labels
        if mixup is not None:
            images, target = mixup(images, target)
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        need_update = index == len(loader) - 1 or (index + 1) % args.grad_accum_steps == 0
        with autocast():
            result = task(images, target)
            loss = result['loss']
        if args.grad_accum_steps > 1:
            loss /= args.grad_accum_steps
        clip = task.get_clip_parameters(exclude_head='agc' in args.clip_mode) if args.clip_grad is not None else None
        if scaler is not None:
            scaler(loss, optimizer, args.clip_grad, args.clip_mode, clip, create_graph=False, need_update=need_update)
        else:
            loss.backward(create_graph=getattr(optimizer, 'is_second_order', False))
            if need_update:
                if clip is not None:
                    utils.dispatch_clip_grad(clip, value=args.clip_grad, mode=args.clip_mode)
                optimizer.step()
        meter.update(loss.item() * args.grad_accum_steps, len(images))
        if need_update:
            optimizer.zero_grad()
            task.update_ema(step=index)
    return meter.avg


def validate(model, loader, autocast, dtype) -> float:
    model.eval()
    meter = utils.AverageMeter()
    with torch.inference_mode():
        for images, target in loader:
            with autocast():
                output = model(images.to(dtype=dtype))
            meter.update(utils.accuracy(output, target)[0].item(), len(images))
    return meter.avg


if __name__ == '__main__':
    main()
