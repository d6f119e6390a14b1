"""Puts together what the page needs: exported widths, the gallery's embeddings, and what the page is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._version import __version__
from ..checkpoints import Checkpoint
from ..data import load_image
from ..evaluation import CompatibilityMatrix
from ..export import export_onnx, write_preprocessing
from ..retrieval import Store
from .runtime import RUNTIME_VERSION
from .server import Site, normalised

__all__ = ['PAGE', 'make_examples', 'make_site']

PAGE = Path(__file__).with_name('page')
_EXAMPLE_SIDE = 512


def make_site(
    checkpoint: Checkpoint,
    gallery: Store,
    *,
    browser: float,
    server: Sequence[float],
    examples: Sequence[Path],
    matrix: CompatibilityMatrix | None,
    runtime: Path,
    cache: Path,
    flip: bool = False,
    k: int = 10,
) -> Site:
    """Exports the widths and puts the site together.

    Args:
        checkpoint: The model on the CPU, with the preprocessing of the gallery's images.
        gallery: Embeddings to search, of the same metric space.
        browser: Width that the browser runs.
        server: Widths that the server runs.
        examples: Pictures to try.
        matrix: Measured accuracy.
        runtime: Folder of onnxruntime-web's files.
        cache: Where exported widths are kept.
        flip: Whether embeddings are averaged with those of the mirrored image.
        k: Matches of a search.

    Raises:
        ImportError: A package of the extra 'demo' is missing.
        ValueError: The checkpoint has no such width, or k is out of range.
    """
    for width in (browser, *server):
        if width not in checkpoint.widths:
            raise ValueError(f'--width and --server-widths must be among {checkpoint.widths}, got {width:g}')
    if not 1 <= k <= 50:
        raise ValueError(f'-k must be in [1, 50], got {k}')
    models = {width: _exported(checkpoint, width, cache / 'models') for width in dict.fromkeys((browser, *server))}
    stated = models[browser].with_name('preprocessing.json').read_text(encoding='utf-8')
    paths, embeddings = _content(gallery)
    config = {
        'format': 1,
        'model': Path(checkpoint.source).name,
        'compatibility': checkpoint.compatibility,
        'gallery': {
            'items': len(gallery), 'width': gallery.info.width, 'embed_dim': gallery.info.embed_dim,
        },
        'k': k,
        'browser': {'width': browser, 'model': f'models/{browser:g}.onnx', 'bytes': models[browser].stat().st_size},
        'server': [{'width': width, 'bytes': models[width].stat().st_size} for width in server],
        'flip': flip,
        'preprocessing': json.loads(stated),
        'matrix': None if matrix is None else _shown(matrix),
        'runtime': RUNTIME_VERSION,
        'examples': [example.stem for example in examples],
    }  # fmt: skip
    return Site(
        config,
        embeddings,
        paths,
        [path.stem for path in paths],
        list(examples),
        PAGE,
        runtime,
        models,
    )


def _content(gallery: Store) -> tuple[list[Path], NDArray[np.float32]]:
    """The file of every item, and its embedding at length 1."""
    paths: list[Path] = []
    embeddings = np.empty((len(gallery), gallery.info.embed_dim), np.float32)
    for names, block in gallery.blocks():
        embeddings[len(paths) : len(paths) + len(names)] = normalised(block.float().numpy())
        paths.extend(map(Path, names))
    return paths, embeddings


def make_examples(files: Sequence[Path], folder: Path, count: int = 8) -> list[Path]:
    """Pictures to try, spread over a gallery's: upright, at most 512 pixels, without the files' metadata.

    Args:
        files: The gallery's.
        folder: Where to write them.
        count: How many at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(0, len(files), max(1, -(-len(files) // count))):
        try:
            image = load_image(files[i])
        except OSError:  # gone since it was embedded, or damaged
            continue
        image.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
        target = folder / f'{files[i].stem}.png'
        image.save(target)
        made.append(target)
    return list(dict.fromkeys(made))


def _exported(checkpoint: Checkpoint, width: float, cache: Path) -> Path:
    """The ONNX file of a width, with its preprocessing.json, exported once."""
    named = json.dumps([
        checkpoint.compatibility, checkpoint.digest(width), width, checkpoint.preprocessing.to_dict(), __version__,
        torch.__version__,
    ])  # fmt: skip
    folder = cache / hashlib.sha256(named.encode()).hexdigest()[:16]
    path = folder / 'model.onnx'
    if not path.is_file():
        export_onnx(checkpoint.model.extract(width).cpu().eval(), path, checkpoint.preprocessing.input_size)
    write_preprocessing(folder / 'preprocessing.json', checkpoint, width)
    return path


def _shown(matrix: CompatibilityMatrix) -> dict[str, Any]:
    """What the page shows of a matrix; nothing of where it was measured."""
    return {
        'widths': list(matrix.widths),
        'names': list(matrix.names),
        'mAP': matrix.mAP.round(2).tolist(),
        'rank1': matrix.cmc[1].round(2).tolist() if 1 in matrix.cmc else None,
        'gain': matrix.gain.round(2).tolist(),
        'compatible': matrix.compatible.tolist(),
        'data': str(matrix.info.get('data', '')),
    }
