"""Arguments and steps that several commands share; flags mean what they mean in timm's scripts."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._device import find_device
from ._terminal import console, progress_bar

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..data import Batches, RetrievalData, Sample

CHECKPOINT = """\
A CHECKPOINT is a folder (a whole slimmable model, a folder w0.25 of one width, or a folder of such folders), a file
(.safetensors with config.json beside it, .pth.tar of timm's train.py), hf-hub:user/name[@revision], or a timm model.
"""


class KeyValues(argparse.Action):
    """Reads `--flag a=1 b=text` into a dictionary, values being Python literals where they can be, as timm does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Stores the pairs."""
        pairs = {}
        for value in values:
            key, sign, text = value.partition('=')
            if not sign:
                parser.error(f'{option_string} needs NAME=VALUE, got {value!r}')
            try:
                pairs[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # as deep or odd texts raise
                pairs[key] = text
        setattr(namespace, self.dest, pairs)


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number of a range, both ends included."""
    words = f'>= {low}' if high is None else f'in [{low}, {high}]'

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f'must be a whole number {words}, got {text!r}')
        return value

    return read


def location(text: str) -> Path | str:
    """The type of an argument that is a folder, or an address such as s3://bucket/gallery, which stays as it is."""
    return text if '://' in text else Path(text)


def add_checkpoint_arguments(
    parser: argparse.ArgumentParser, *, positional: bool = False, workers: int | None = 0
) -> None:
    """Adds what says which model embeds, and how images are prepared for it.

    Args:
        parser: The command's.
        positional: The checkpoint is what the command is about, and needs no flag.
        workers: How many processes read images by default; None where the command chooses.
    """
    group = parser.add_argument_group('model')
    if positional:
        group.add_argument('checkpoint', metavar='CHECKPOINT', help='the trained model, see above')
    else:
        group.add_argument('--checkpoint', required=True, metavar='CHECKPOINT', help='the trained model, see above')
    group.add_argument('--model', metavar='NAME', help="timm's name of the model, for files that do not say it")
    group.add_argument(
        '--model-kwargs', nargs='*', action=KeyValues, default={}, metavar='NAME=VALUE',
        help='arguments of timm.create_model, for files that do not say them',
    )  # fmt: skip
    group.add_argument('--use-ema', action='store_true', help='take the averaged weights of a training checkpoint')
    _add_preprocessing_arguments(parser)
    group = parser.add_argument_group('running')
    group.add_argument(
        '-b', '--batch-size', type=int, default=128, metavar='N',
        help='images embedded at a time (>= 1; %(default)s)',
    )  # fmt: skip
    group.add_argument(
        '-j', '--workers', type=whole_number(0, 1024), default=workers, metavar='N',
        help='processes that read images (in [0, 1024]; '
        f'{"0, or by --engine ray all cores where GPUs embed" if workers is None else workers})',
    )  # fmt: skip
    group.add_argument('--device', metavar='NAME', help='device that embeds: cpu, cuda, ... (cuda where there is one)')


def _add_preprocessing_arguments(parser: argparse.ArgumentParser) -> None:
    from ..data import CROP_MODES, INTERPOLATIONS

    group = parser.add_argument_group('images', "how images are prepared; what is left out is the checkpoint's")
    group.add_argument('--img-size', type=int, metavar='N', help='height and width of the input in pixels, 1 to 8192')
    group.add_argument(
        '--input-size', type=int, nargs=3, metavar=('C', 'H', 'W'), help='channels, height and width of the input'
    )
    group.add_argument(
        '--mean', type=float, nargs='+', metavar='MEAN', help='mean of each channel, or one for all, in [0, 1]'
    )
    group.add_argument(
        '--std', type=float, nargs='+', metavar='STD',
        help='standard deviation of each channel, or one for all, in [0.001, 1]',
    )  # fmt: skip
    group.add_argument('--interpolation', choices=INTERPOLATIONS, help='how images are resized')
    group.add_argument(
        '--crop-pct', type=float, metavar='SHARE', help='share of the resized image that the crop keeps, in [0.1, 2]'
    )
    group.add_argument(
        '--crop-mode', choices=CROP_MODES,
        help='how images get the shape of the input: the centre is cut out, the whole is squashed, or a border added',
    )  # fmt: skip
    group.add_argument('--flip', action='store_true', help='average each embedding with that of the mirrored image')


def add_data_arguments(parser: argparse.ArgumentParser, *, required: bool, on_error: str | None = 'raise') -> None:
    """Adds what says which data set to read; `on_error` is None where the command chooses."""
    group = parser.add_argument_group('data')
    group.add_argument('--data', required=required, metavar='NAME', help='data set; `sfsc-timm data` lists them')
    group.add_argument('--data-dir', type=Path, metavar='DIR', help='folder (or manifest file) of the data set')
    group.add_argument(
        '--data-kwargs', nargs='*', action=KeyValues, default={}, metavar='NAME=VALUE',
        help="options of the data set's reader, such as train_share=0.7",
    )  # fmt: skip
    add_error_argument(group, on_error)


def add_error_argument(group: Any, default: str | None = 'raise') -> None:
    """Adds what to do at an unreadable image."""
    group.add_argument(
        '--on-error', choices=('raise', 'skip'), default=default,
        help=f'what to do at an unreadable image ({default or "raise; with --engine ray skip"})',
    )  # fmt: skip


def load_model(args: argparse.Namespace, source: str, width: float | None = None) -> Checkpoint:
    """Loads a checkpoint with the arguments of `add_checkpoint_arguments`, onto the device."""
    from ..checkpoints import load_checkpoint_model

    if args.batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, got {args.batch_size}')
    _check_file_flags(args, source)
    checkpoint = load_checkpoint_model(
        source,
        width,
        model=args.model,
        model_kwargs=args.model_kwargs,
        use_ema=args.use_ema,
        data_config=asked_preprocessing(args),
    )
    checkpoint.model.to(find_device(args.device))
    return checkpoint


def _check_file_flags(args: argparse.Namespace, source: str) -> None:
    """Refuses flags that are for a file of weights where the checkpoint is a folder, which says it itself."""
    name = source.removeprefix('local-dir:')
    if name.startswith('hf-hub:') or Path(name).expanduser().is_dir():
        for flag, value in (
            ('--use-ema', args.use_ema), ('--model', args.model), ('--model-kwargs', args.model_kwargs),
        ):  # fmt: skip
            if value:
                raise ValueError(
                    f'{flag} is for files of weights, got a folder, {source!r}, which says it; leave it out'
                )


def check_data_arguments(args: argparse.Namespace) -> None:
    """Refuses options of a data set where none is named.

    Raises:
        ValueError: There are some.
    """
    if args.data is None and (args.data_dir is not None or args.data_kwargs):
        raise ValueError('--data-dir and --data-kwargs are of a data set, got no --data; name it, or leave them out')


def read_data(args: argparse.Namespace) -> RetrievalData:
    """Reads the data set of `add_data_arguments`.

    Raises:
        ValueError: The name, the folder or an option is missing or wrong.
    """
    from .. import data

    tree = getattr(getattr(data, args.data, None), 'TREE', None) if args.data in data.list_data() else None
    if tree is not None and args.data_dir is None:
        raise ValueError(f'{args.data} needs --data-dir. Expected tree:\n{tree}')
    try:
        return data.load_data(args.data, args.data_dir, **args.data_kwargs)
    except TypeError as error:
        raise ValueError(f'--data-kwargs: an option of {args.data} has the wrong type: {error}') from error


def asked_preprocessing(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of how images are prepared, for `Preprocessing.changed`; None where they say nothing."""
    names = ('img_size', 'input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
    return {name: getattr(args, name) for name in names}


def suited(checkpoint: Checkpoint, data: RetrievalData, args: argparse.Namespace) -> Checkpoint:
    """The checkpoint with the preprocessing that suits the data, unless the flags ask for another crop."""
    if args.crop_mode is not None:
        return checkpoint
    return replace(checkpoint, preprocessing=checkpoint.preprocessing.suited(data).changed(crop_pct=args.crop_pct))


def serve(
    checkpoint: Checkpoint, samples: Sequence[Sample], args: argparse.Namespace, data: RetrievalData | None = None
) -> Batches:
    """Batches of samples as the checkpoint takes them, in order; small arrays of `data` come from memory."""
    from ..data import batches, make_transforms

    preprocessing = checkpoint.preprocessing
    transform = preprocessing.transform() if data is None else make_transforms(data, preprocessing)[1]
    return batches(
        samples,
        transform,
        batch_size=args.batch_size,
        mode=preprocessing.image_mode,
        workers=args.workers,
        on_error=getattr(args, 'on_error', 'raise'),
        pin_memory=find_device(args.device).type == 'cuda',
    )


def embed_dim(checkpoint: Checkpoint, width: float, args: argparse.Namespace) -> int:
    """Numbers per embedding, which a blank image tells."""
    import torch

    from ..evaluation import embed

    blank = torch.zeros(1, *checkpoint.preprocessing.input_size)
    return embed(checkpoint.model, [blank], [width], device=find_device(args.device))[width].shape[1]


def track(items: Any, total: int, label: str) -> Iterator[Any]:
    """Passes items on, with a progress bar on standard error where that is a terminal."""
    terminal = console(stderr=True)
    bar = progress_bar(terminal)
    bar.disable = not terminal.is_terminal
    with bar:
        yield from bar.track(items, total, description=label)
