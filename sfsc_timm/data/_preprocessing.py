"""How an image becomes the input of a model: one value for the transform, the files that state it, and ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from timm.data import resolve_data_config
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from PIL import Image

    from ._types import RetrievalData

    ImageTransform = Callable[[Image.Image], torch.Tensor]

CROP_MODES = ('center', 'squash', 'border')
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos')
_LONGEST_SIDE = 8192
_SHORTHANDS = ('img_size', 'in_chans')


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model, as timm's evaluation does it.

    Attributes:
        input_size: (C, H, W) of the result; sides up to 8192.
        mean: Mean of each of the C channels, in [0, 1].
        std: Standard deviation of each channel, in [0.001, 1].
        interpolation: How images are resized, one of timm's names: 'bilinear', 'bicubic', ...
        crop_pct: Share of the resized image that the crop keeps, in [0.1, 2]; above 1 the crop is padded.
        crop_mode: 'center' resizes the shorter side and crops; 'squash' resizes without keeping the aspect ratio
            (re-identification); 'border' resizes the longer side and pads.

    Raises:
        ValueError: A value is of the wrong type or out of its range.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    interpolation: str = 'bicubic'
    crop_pct: float = 1.0
    crop_mode: str = 'center'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'input_size', _size(self.input_size))
        for name, low in (('mean', 0.0), ('std', 0.001)):
            values = _numbers(name, getattr(self, name), low, 1.0, 'images are scaled to [0, 1] first')
            if len(values) != self.channels:
                raise ValueError(
                    f'{name} must have a value for each of the {self.channels} channels of input_size, got {values}'
                )
            object.__setattr__(self, name, values)
        (share,) = _numbers('crop_pct', (self.crop_pct,), 0.1, 2.0, 'it is the share of the image that is kept')
        object.__setattr__(self, 'crop_pct', share)
        for name, known in (('interpolation', INTERPOLATIONS), ('crop_mode', CROP_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, got {getattr(self, name)!r}')

    @classmethod
    def from_pretrained_cfg(cls, cfg: Mapping[str, Any], **changes: Any) -> Preprocessing:
        """What a model's configuration of timm says, and timm's defaults where it says nothing.

        Args:
            cfg: Entries of a pretrained configuration, or of what timm resolves from one.
            **changes: See `changed`.
        """
        found = resolve_data_config({'in_chans': 3}, pretrained_cfg=dict(cfg))
        # timm passes over what is 0 or empty, which would hide a damaged configuration.
        found.update((name, cfg[name]) for name in found if cfg.get(name) is not None)
        channels = _size(found['input_size'])[0]
        fitted = {name: _fitted(found[name], channels) for name in ('mean', 'std')}
        return cls(**{**found, **fitted}).changed(**changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Reads what `to_dict` gives.

        Raises:
            ValueError: An entry is missing, unknown or wrong.
        """
        known = {entry.name for entry in fields(cls)}
        if set(values) != known:
            raise ValueError(f'preprocessing must have the entries {sorted(known)}, got {sorted(map(str, values))}')
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The values under timm's names, as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def changed(self, **changes: Any) -> Preprocessing:
        """The same with some values replaced.

        Args:
            **changes: By name; None leaves what is there. `img_size` stands for a square input and `in_chans` for its
                channels. One value of mean or std serves all channels, and where the number of channels changes
                without new ones, their average does.

        Raises:
            ValueError: A name is unknown, a value is wrong, or two contradict each other.
        """
        known = {entry.name for entry in fields(self)}
        if unknown := sorted(set(changes) - known - set(_SHORTHANDS)):
            raise ValueError(f'preprocessing has the entries {sorted(known)}, got {", ".join(unknown)}')
        given = {name: value for name, value in changes.items() if value is not None}
        shorthands = {name: given.pop(name) for name in _SHORTHANDS if name in given}
        asked = _size(given.pop('input_size', self.input_size))
        channels, *sides = asked
        if 'img_size' in shorthands:
            sides = [shorthands['img_size']] * 2
        size = _size((shorthands.get('in_chans', channels), *sides))
        if size != asked and changes.get('input_size') is not None:
            raise ValueError(f'input_size must agree with {shorthands}, got {asked}; give one of them')
        for name in ('mean', 'std'):
            if name not in given:
                given[name] = _fitted(getattr(self, name), size[0])
            elif isinstance(given[name], Sequence) and len(given[name]) == 1:
                given[name] = tuple(given[name]) * size[0]
        return replace(self, input_size=size, **given)

    def suited(self, data: RetrievalData) -> Preprocessing:
        """Re-identification's for data with cameras, which is the whole image, squashed; as it is for other data."""
        return replace(self, crop_mode='squash', crop_pct=1.0) if data.cameras else self

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return self.input_size[0]

    @property
    def image_mode(self) -> Literal['L', 'RGB']:
        """Pillow's mode in which images are decoded."""
        return 'L' if self.channels == 1 else 'RGB'

    def transform(self) -> ImageTransform:
        """The transform, timm's, of a PIL image to a float tensor (C, H, W)."""
        from timm.data.transforms_factory import create_transform

        transform: ImageTransform = create_transform(**asdict(self))
        return transform

    def steps(self) -> list[dict[str, Any]]:
        """What the transform does to a decoded image, step by step, for devices without PyTorch."""
        _, height, width = self.input_size
        resize: dict[str, Any] = {'interpolation': self.interpolation, 'antialias': True}
        # timm's rule: the image is resized so that the crop is `crop_pct` of it; sizes are (height, width).
        size = [math.floor(height / self.crop_pct), math.floor(width / self.crop_pct)]
        if self.crop_mode == 'squash':
            resize.update(size=size, keep_ratio=False)
        elif self.crop_mode == 'border':
            resize.update(fit_inside=size, keep_ratio=True)
        elif height == width:
            resize.update(shorter_side=size[0], keep_ratio=True)
        else:
            resize.update(cover=size, keep_ratio=True)
        crop: dict[str, Any] = {'size': [height, width], 'where': 'center'}
        if self.crop_mode == 'border':
            crop['pad_with'] = [round(255 * value) for value in self.mean]
        return [
            {'resize': resize},
            {'crop': crop},
            {'scale': 1 / 255},
            {'normalise': {'mean': list(self.mean), 'std': list(self.std)}},
        ]


def _size(value: Any) -> tuple[int, int, int]:
    """A checked input_size."""
    whole = isinstance(value, Sequence) and all(isinstance(v, Integral) and not isinstance(v, bool) for v in value)
    if not whole or len(value) != 3 or not all(1 <= v <= _LONGEST_SIDE for v in value):
        raise ValueError(
            f'input_size must be channels, height and width, whole numbers from 1 to {_LONGEST_SIDE}, got {value!r}'
        )
    channels, height, width = map(int, value)
    return channels, height, width


def _numbers(name: str, values: Any, low: float, high: float, reason: str) -> tuple[float, ...]:
    """Checked numbers of one range."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f'{name} must be a number for each channel, got {values!r}')
    for value in values:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise ValueError(f'{name} must be in [{low:g}, {high:g}], got {value!r}; {reason}')
    return tuple(float(value) for value in values)


def _fitted(values: Any, channels: int) -> tuple[float, ...]:
    """Values for so many channels: those that are there if they fit, else their average."""
    values = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
    if len(values) == channels or not values:
        return values
    numbers = _numbers('mean and std', values, 0.0, 1.0, 'images are scaled to [0, 1] first')
    return (sum(numbers) / len(numbers),) * channels
