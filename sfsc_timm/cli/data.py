"""Lists the data sets, summarises one, and builds the benchmark `emoji`.

  sfsc-timm data
  sfsc-timm data market1501 --data-dir Market-1501-v15.09.15
  sfsc-timm data folder --data-dir photos --data-kwargs train_share=0.7
  sfsc-timm data emoji --build --data-dir emoji

Where a data set needs its folder, `sfsc-timm data NAME` without --data-dir shows which files are expected in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._options import KeyValues, read_data
from ._terminal import console, progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument('data', nargs='?', metavar='NAME', help='data set to summarise; without a name, all are listed')
    parser.add_argument('--data-dir', type=Path, metavar='DIR', help='folder (or manifest file) of the data set')
    parser.add_argument(
        '--data-kwargs',
        nargs='*',
        action=KeyValues,
        default={},
        metavar='NAME=VALUE',
        help="options of the data set's reader, such as train_share=0.7",
    )
    parser.add_argument(
        '--build',
        action='store_true',
        help="build the data set `emoji` in --data-dir first (needs npm and pip install 'sfsc-timm[emoji]')",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    terminal = console()
    if args.data is None:
        if args.build or args.data_dir or args.data_kwargs:
            raise ValueError('name the data set that the options are for; `sfsc-timm data` lists them.')
        _list(terminal)
        return
    if args.build:
        _build(terminal, args)
    terminal.print(read_data(args).summary(), soft_wrap=True)


def _list(terminal: Any) -> None:
    """Prints each data set with the first line of its module's docstring."""
    from .. import data

    names = data.list_data()
    for name in names:
        about = (getattr(getattr(data, name, None), '__doc__', None) or '').split('\n', 1)[0]
        about = about.removeprefix(f'`{name}`: ')
        terminal.print(f'{name.ljust(max(map(len, names)))}  {about}', soft_wrap=True)


def _build(terminal: Any, args: argparse.Namespace) -> None:
    """Builds `emoji` under a progress bar for each design.

    Raises:
        ValueError: The data set is not one that is built, or the folder is not named.
        OSError: npm is missing or failed.
    """
    from ..data import build_emoji

    if args.data != 'emoji':
        raise ValueError(f'--build is for emoji, the other data sets are not built; got {args.data!r}.')
    if args.data_dir is None:
        raise ValueError('--build needs --data-dir, the folder to build in.')
    options = {name: args.data_kwargs.pop(name) for name in ('size',) if name in args.data_kwargs}
    lines: dict[str, Any] = {}
    with progress_bar(terminal) as bar:

        def progress(design: str, done: int, total: int) -> None:
            if design not in lines:
                lines[design] = bar.add_task(design, total=total)
            bar.update(lines[design], completed=done)

        try:
            build_emoji(args.data_dir, progress=progress, **options)
        except RuntimeError as error:  # of npm
            raise OSError(str(error)) from error
