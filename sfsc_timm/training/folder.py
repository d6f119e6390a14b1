"""The folder of a run: its name, its checkpoints, and the settings by which it goes on."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .._files import replacing
from .checkpoint import load_checkpoint, origin_in
from .config import TrainConfig, read_config
from .origin import check_settings_kept, settings_in, settings_of

__all__ = ['BEST', 'LAST', 'keep_best', 'resume_config', 'run_folder']

LAST, BEST = 'last.pth.tar', 'model_best.pth.tar'


def run_folder(config: TrainConfig) -> Path:
    """Folder of a new run: output/experiment, or output/time-recipe-model."""
    name = config.experiment or f'{time.strftime("%Y%m%d-%H%M%S")}-{config.recipe}-{config.model}'
    return Path(config.output) / name


def resume_config(folder: str | Path, given: dict[str, Any], extend: int | None = None) -> tuple[TrainConfig, Path]:
    """Settings of a run that is to go on.

    Args:
        folder: The run's folder, or a checkpoint in it.
        given: Settings asked for now. Those that decide what is computed must be the run's.
        extend: Epochs to train to in all, more than the run's. From here on, the learning rate follows the schedule of
            so many, as does what else is a share of the epochs: the result is not that of a run planned so.

    Returns:
        The settings and the run's folder.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: A setting differs from those given before, or from those that a checkpoint was trained by.
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
            way = ', or --extend in its place' if name == 'epochs' else ', or start a new run'
            raise ValueError(
                f'{name} was {kept[name]!r} in the run at {str(path)!r}, got {value!r}: a resumed run goes on as it '
                f'began; leave the flag out{way}'
            )
    if extend is not None:
        before['epochs'] = extend
    config = TrainConfig(**before)
    planned = []
    for checkpoint in (path / LAST, *sorted(path.glob(f'w*/{LAST}'))):
        if checkpoint.is_file():
            content = load_checkpoint(checkpoint, only_looks=True)
            check_settings_kept(content, origin_in(content), settings_of(config), extend is not None)
            planned.append(settings_in(content, origin_in(content)).get('epochs', kept['epochs']))
    if extend is not None and extend <= (least := min(planned, default=kept['epochs'])):
        raise ValueError(
            f'extend must be more than the {least} epochs of the run, got {extend}; leave it out to go on to {least}'
        )
    return config, path


def keep_best(folder: Path) -> None:
    """Makes the best checkpoint what the last one is now, without copying where links are possible."""
    with replacing(folder / BEST) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(folder / LAST)
        except OSError:
            temporary.write_bytes((folder / LAST).read_bytes())
