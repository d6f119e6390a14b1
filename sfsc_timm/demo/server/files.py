"""The fixed list of files that are served, by the names under which they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Asset', 'list_assets']

_MEDIA_TYPES = {
    '.html': 'text/html; charset=utf-8',
    '.css': 'text/css; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.mjs': 'text/javascript; charset=utf-8',
    '.wasm': 'application/wasm',
    '.onnx': 'application/octet-stream',
    '.svg': 'image/svg+xml',
    '.png': 'image/png',
    '.jpg': 'image/jpeg',
}


@dataclass(frozen=True)
class Asset:
    """A file that is served.

    Attributes:
        file: Where it lies.
        media_type: Of its content.
        tag: Tells its content from any other.
        gzipped: The same compressed; None where there is none.
    """

    file: Path
    media_type: str
    tag: str
    gzipped: Path | None = None


def list_assets(page: Path, runtime: Path, models: Mapping[float, Path], examples: Sequence[Path]) -> dict[str, Asset]:
    """The files by the paths of their requests.

    Args:
        page: Folder of the page's own files.
        runtime: Folder of onnxruntime-web's files.
        models: Exported widths.
        examples: Pictures to try.

    Raises:
        FileNotFoundError: The page is not there.
    """
    named = {f'/{file.name}': file for file in page.iterdir() if file.suffix in _MEDIA_TYPES}
    if '/index.html' not in named:
        raise FileNotFoundError(f'{str(page)!r} holds no page; install sfsc-timm again')
    named['/'] = named['/index.html']
    named |= {f'/runtime/{file.name}': file for file in runtime.iterdir() if file.suffix in _MEDIA_TYPES}
    named |= {f'/models/{width:g}.onnx': file for width, file in models.items()}
    named |= {f'/examples/{i}': file for i, file in enumerate(examples)}
    return {name: _asset(file) for name, file in named.items()}


def _asset(file: Path) -> Asset:
    gzipped = file.with_name(f'{file.name}.gz')
    tag = hashlib.sha256(file.read_bytes()).hexdigest()
    return Asset(file, _MEDIA_TYPES[file.suffix], f'"{tag[:32]}"', gzipped if gzipped.is_file() else None)
