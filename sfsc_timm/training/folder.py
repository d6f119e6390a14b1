"""The folder of a run: its name, its checkpoints, and the settings by which it goes on."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .._files import replacing
from .config import TrainConfig, read_config

__all__ = ['BEST', 'LAST', 'keep_best', 'resume_config', 'run_folder']

LAST, BEST = 'last.pth.tar', 'model_best.pth.tar'


def run_folder(config: TrainConfig) -> Path:
    """Folder of a new run: output/experiment, or output/time-recipe-model."""
    name = config.experiment or f'{time.strftime("%Y%m%d-%H%M%S")}-{config.recipe}-{config.model}'
    return Path(config.output) / name


def resume_config(folder: str | Path, given: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """Settings of a run that is to go on.

    Args:
        folder: The run's folder, or a checkpoint in it.
        given: Settings asked for now. Those that decide what is computed must be the run's.

    Returns:
        The settings and the run's folder.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: A setting differs.
    """
    path = Path(folder)
    path = path.parent if path.suffix == '.tar' else path
    if not (path / 'args.yaml').is_file() and (path.parent / 'args.yaml').is_file():
        path = path.parent  # a checkpoint of one of several networks
    if not (path / 'args.yaml').is_file():
        raise FileNotFoundError(f'no run to resume at {str(path)!r}: it has no args.yaml')
    before = read_config(path / 'args.yaml')
    free = {entry.name for entry in fields(TrainConfig) if entry.metadata.get('runtime')}
    kept = asdict(TrainConfig(**before))
    for name, value in given.items():
        if name in free:
            before[name] = value
        elif json.dumps(kept[name], default=str) != json.dumps(value, default=str):
            raise ValueError(
                f'{name} was {kept[name]!r} in the run at {str(path)!r}, got {value!r}: a resumed run goes on as it '
                'began; leave the flag out, or start a new run'
            )
    return TrainConfig(**before), path


def keep_best(folder: Path) -> None:
    """Makes the best checkpoint what the last one is now, without copying where links are possible."""
    with replacing(folder / BEST) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(folder / LAST)
        except OSError:
            temporary.write_bytes((folder / LAST).read_bytes())
