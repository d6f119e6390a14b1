"""The files of onnxruntime-web, of one version and checked, which the browser gets from the demo's own server."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

from .._files import replacing
from .._npm import npm_pack

__all__ = ['RUNTIME_VERSION', 'cache_folder', 'find_runtime']

RUNTIME_VERSION = '1.30.0'
_SPECIFICATION = f'onnxruntime-web@{RUNTIME_VERSION}'
_INTEGRITY = 'sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='
# The build for the processor with its loader inside, and the program itself; sha256 of each.
_FILES = {
    'ort.wasm.bundle.min.mjs': '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90',
    'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}


def cache_folder() -> Path:
    """Where the demo keeps what it fetches and exports: `XDG_CACHE_HOME`, else `~/.cache`, and `sfsc-timm` in it."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'sfsc-timm'


def find_runtime(cache: Path, given: Path | None = None) -> Path:
    """The folder of onnxruntime-web's files.

    They are fetched by npm the first time and kept, compressed too.

    Args:
        cache: Where they are kept.
        given: A folder that holds them already, such as `node_modules/onnxruntime-web/dist`; nothing is fetched then.

    Raises:
        FileNotFoundError: A file is missing in the folder given, or npm is not installed.
        ConnectionError: npm failed, or brought another package than the pinned one.
        ValueError: A file is not of the pinned version.
    """
    if given is not None:
        return _checked(given)
    folder = cache / f'onnxruntime-web-{RUNTIME_VERSION}'
    if not all(_is_right(folder / name) for name in _FILES):
        _fetch(folder)
    for name in _FILES:
        _compress(folder / name)
    return _checked(folder)


def _fetch(folder: Path) -> None:
    archive = folder / 'package.tgz'
    purpose = 'it fetches ONNX Runtime for the browser, once; --ort-dir names a folder that holds its files'
    try:
        npm_pack(_SPECIFICATION, _INTEGRITY, archive, purpose)
    except RuntimeError as error:
        raise ConnectionError(
            f'{error}; try again with a network, or name a folder that holds the files of {_SPECIFICATION} by --ort-dir'
        ) from error
    with tarfile.open(archive) as package:
        for name in _FILES:
            member = package.extractfile(f'package/dist/{name}')
            assert member is not None, 'the pinned package holds it'  # noqa: S101
            with member, replacing(folder / name) as temporary:
                temporary.write_bytes(member.read())
    archive.unlink()


def _checked(folder: Path) -> Path:
    for name in _FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f'--ort-dir must hold {", ".join(_FILES)} of {_SPECIFICATION}, {str(folder)!r} lacks {name}'
            )
        if not _is_right(folder / name):
            raise ValueError(
                f'{str(folder / name)!r} is not that of {_SPECIFICATION}, by its sha256; get that version, or leave '
                '--ort-dir out'
            )
    return folder


def _is_right(file: Path) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == _FILES[file.name]


def _compress(file: Path) -> None:
    target = file.with_name(f'{file.name}.gz')
    if not target.is_file():
        with replacing(target) as temporary:
            temporary.write_bytes(gzip.compress(file.read_bytes(), 6, mtime=0))
