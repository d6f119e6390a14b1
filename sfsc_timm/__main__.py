"""`python -m sfsc_timm`: the `sfsc-timm` command, for `torchrun -m sfsc_timm train` on many processes."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
