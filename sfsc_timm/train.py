"""`torchrun -m sfsc_timm.train`: another name of `torchrun -m sfsc_timm train`."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
