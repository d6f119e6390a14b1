"""Runs a script with our models registered: `python -m sfsc_timm.timm_script validate.py --model sfsc_resnet50 ...`.

For timm's scripts without `--device-modules` (validate.py, inference.py, benchmark.py, onnx_export.py). The script sees
its own arguments and its own folder, as if it had been started alone.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import sfsc_timm  # noqa: F401  registers the models

__all__ = ['main']


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a script.

    Args:
        arguments: The script and what it is to get; None for those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog='python -m sfsc_timm.timm_script', description='Runs a script with our models known.'
    )
    parser.add_argument('script', help="Python script, such as timm's validate.py")
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='passed on to the script')
    given = parser.parse_args(arguments)
    if not Path(given.script).is_file():
        parser.error(
            f"script must be a file, got {given.script!r}, which does not exist (timm's scripts are in its "
            'repository, not in its package)'
        )
    argv, path = sys.argv, sys.path[:]
    sys.argv = [given.script, *given.arguments]
    sys.path.insert(0, str(Path(given.script).resolve().parent))
    try:
        runpy.run_path(given.script, run_name='__main__')
    finally:
        sys.argv, sys.path[:] = argv, path


if __name__ == '__main__':
    main()
