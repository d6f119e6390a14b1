"""Entry point of `sfsc-timm`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .._files import write_failure
from .._version import __version__
from ._terminal import fail

__all__ = ['main']

# Sub-command and what it does; its module has `add_arguments(parser)` and `run(args)`. Help shows the module's
# docstring, which `python -OO` leaves out, and its NOTES if it has some.
COMMANDS = {
    'quickstart': 'train compatible widths in minutes, see the matrix, search with a small model',
    'train': 'train all widths by SFSC or another recipe, resumable at any step',
    'eval': 'every query width against every gallery width of a checkpoint, on any data set',
    'index': 'embed a folder of images into a gallery',
    'search': 'search a gallery, at another width if you like',
    'gallery': 'look after galleries: take items out, merge, convert, export, index',
    'refit': 'fit narrow widths again to your own images, without labels',
    'publish': 'put a checkpoint on the Hugging Face Hub, a branch for each width',
    'export': 'write widths as ONNX, as int8 too if you like',
    'demo': 'a page that embeds in the browser at a small width and searches your gallery',
    'bench': 'time every width on this machine, in PyTorch and ONNX Runtime',
    'data': 'list and summarise data sets, build the emoji benchmark',
}
_MODULES = {'eval': 'evaluate'}  # where it is not called as the command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command.

    Args:
        argv: Arguments without the program's name; None takes them from the command line.

    Returns:
        Exit status: 0, 1 for an error that the message explains, 2 for wrong usage, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog='sfsc-timm',
        description='Slimmable timm models whose widths share one metric space.',
        epilog='sfsc-timm COMMAND --help explains a command.',
    )
    parser.add_argument('--version', action='version', version=f'sfsc-timm {__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    argv = sys.argv[1:] if argv is None else argv
    # Only the module of the command asked for is imported, which keeps the others out of its way.
    chosen = next((argument for argument in argv if not argument.startswith('-')), None)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            module = importlib.import_module(f'.{_MODULES.get(name, name)}', __package__)
            sub.description = (module.__doc__ or '') + getattr(module, 'NOTES', '')
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt as stop:
        return fail(str(stop) or 'stopped', status=130)
    except Exception as error:
        if reason := write_failure(error):
            return fail(str(error) if 'could not be written' in str(error) else reason)
        if isinstance(error, ValueError | OSError | FloatingPointError | ImportError):
            return fail(str(error))
        raise  # a fault of ours
    return 0


if __name__ == '__main__':
    sys.exit(main())
