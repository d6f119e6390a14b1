"""Sound inputs, made once, that the cases damage copies of."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from helpers.checkpoints import ARGS, DATA_CONFIG, paint, save_training, tiny

from sfsc_timm.checkpoints import save_model, save_widths

from .case import call

DEVICE = ['--device', 'cpu']


@dataclass(frozen=True, eq=False)
class Materials:
    """Images, checkpoints, a gallery and the result of a search.

    Attributes:
        root: Folder of everything.
    """

    root: Path

    @cached_property
    def images(self) -> Path:
        """A folder of three identities with four images each."""
        paint(self.root / 'photos')
        return self.root / 'photos'

    @cached_property
    def widths(self) -> Path:
        """A folder of the widths w0.5 and w1."""
        save_widths(tiny(widths=(0.5, 1.0)), self.root / 'widths', data_config=DATA_CONFIG)
        return self.root / 'widths'

    @cached_property
    def narrow(self) -> Path:
        """The folder of the width 0.5."""
        return self.widths / 'w0.5'

    @cached_property
    def whole(self) -> Path:
        """The whole slimmable model."""
        return save_model(tiny(widths=(0.5, 1.0)), self.root / 'whole', data_config=DATA_CONFIG)

    @cached_property
    def training(self) -> Path:
        """A checkpoint as timm's train.py writes it."""
        torch.manual_seed(0)
        return save_training(tiny(), self.root / 'last.pth.tar', model_kwargs=ARGS)

    @cached_property
    def gallery(self) -> Path:
        """The images, embedded at width 1."""
        folder = self.root / 'gallery'
        command = ['index', str(self.images), '--checkpoint', str(self.widths), '--output', str(folder), *DEVICE]
        status, _, err = call([*command, '--shard-size', '5', '-b', '5'], 120)
        assert status == 0, err
        return folder

    @cached_property
    def query(self) -> Path:
        """An image to search for."""
        return next(iter(sorted(self.images.rglob('*.png'))))

    def search(self, gallery: Path | None = None, checkpoint: Path | None = None, *more: str) -> list[str]:
        """The command line of a search."""
        places = [str(gallery or self.gallery), str(self.query), '--checkpoint', str(checkpoint or self.narrow)]
        return ['search', *places, '--json', *DEVICE, *more]

    @cached_property
    def found(self) -> str:
        """What a sound search prints."""
        status, out, err = call(self.search(), 120)
        assert status == 0, err
        return out

    @cached_property
    def found_by_whole(self) -> str:
        """What a sound search with the whole model prints."""
        status, out, err = call(self.search(None, self.whole, '--width', '0.5', '--force'), 120)
        assert status == 0, err
        return out

    def copy(self, what: Path, folder: Path) -> Path:
        """A copy that may be damaged."""
        target = folder / what.name
        (shutil.copytree if what.is_dir() else shutil.copy)(what, target)
        return target
