"""What a result was measured on, and how it is written down."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from sfsc_timm._files import write_json


def describe_machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    import timm
    import torch

    cpu = platform.processor() or platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        names = [line.split(':')[1].strip() for line in cpuinfo.read_text().splitlines() if 'model name' in line]
        cpu = names[0] if names else cpu
    return {
        'cpu': cpu,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
    }


def command() -> str:
    """What started this process: a script of this repository by its module, wherever the checkout lies."""
    script, root = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[1]
    inside = script.is_relative_to(root)
    name = '-m ' + '.'.join(script.relative_to(root).with_suffix('').parts) if inside else sys.argv[0]
    return ' '.join(['python', name, *sys.argv[1:]])


def save_json(path: str | Path, results: dict[str, Any]) -> None:
    """Writes results with the command and the machine, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, {'command': command(), 'machine': describe_machine(), **results})
