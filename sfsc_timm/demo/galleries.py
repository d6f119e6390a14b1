"""Galleries for the demo: the user's own, checked against the checkpoint, or one of glyphs, with its matrix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .._files import write_json
from ..checkpoints import Checkpoint
from ..data import RetrievalData, Sample, batches
from ..evaluation import CompatibilityMatrix, GroundTruth, compatibility_matrix, embed
from ..retrieval import Gallery, GalleryInfo, IncompatibleGalleryError, Preparation, Store, query_size

__all__ = ['glyph_gallery', 'prepared_as', 'read_matrix']


def prepared_as(gallery: Store, checkpoint: Checkpoint) -> tuple[Checkpoint, bool]:
    """The checkpoint with the preprocessing of a gallery's images, and whether to average with the mirrored image.

    Raises:
        IncompatibleGalleryError: The gallery is of another metric space, or its images were decoded by other rules.
        ValueError: It is empty.
    """
    if not len(gallery):
        raise ValueError(f'GALLERY must hold images, {gallery.location!r} is empty; embed some by `sfsc-timm index`')
    blank = torch.zeros(1, *checkpoint.preprocessing.input_size)
    whole = next(iter(embed(checkpoint.model, [blank], checkpoint.widths[-1:]).values())).shape[1]
    size = query_size(gallery.info.embed_dim, checkpoint.embed_dims, whole)
    gallery.check(checkpoint.compatibility, size, space_id=checkpoint.space)
    known = Preparation.of(gallery)
    if known is None:
        return checkpoint, False
    wanted = known.for_queries(gallery.location, {}, flip=False)
    if wanted.preprocessing.channels != checkpoint.preprocessing.channels:
        raise IncompatibleGalleryError(
            f'the images of {gallery.location!r} were prepared with {wanted.preprocessing.channels} channels, the '
            f'checkpoint takes {checkpoint.preprocessing.channels}: they are not of one metric space'
        )
    return replace(checkpoint, preprocessing=wanted.preprocessing), wanted.flip


def glyph_gallery(checkpoint: Checkpoint, data: RetrievalData, cache: Path) -> tuple[Gallery, CompatibilityMatrix]:
    """Embeds drawn glyphs by the widest width, and measures every query width against every gallery width.

    Args:
        checkpoint: The model, on the CPU.
        data: Of `draw_glyphs`.
        cache: Where gallery and matrix are kept, by the checkpoint.
    """
    width = checkpoint.widths[-1]
    named = json.dumps([checkpoint.compatibility, checkpoint.preprocessing.to_dict(), len(data.gallery)])
    folder = cache / hashlib.sha256(named.encode()).hexdigest()[:16]
    measured = folder / 'matrix.json'
    paths = [str(sample.image) for sample in data.gallery]
    if not measured.is_file():
        transform, mode = checkpoint.preprocessing.transform(), checkpoint.preprocessing.image_mode

        def embedded(samples: Sequence[Sample]) -> dict[float, Tensor]:
            return embed(checkpoint.model, (b.images for b in batches(samples, transform, mode=mode)))

        queries, galleries = embedded(data.query), embedded(data.gallery)
        info = GalleryInfo(
            checkpoint.source, width, galleries[width].shape[1], checkpoint.compatibility,
            space_id=checkpoint.space, weights_digest=checkpoint.digest(width),
        )  # fmt: skip
        gallery = Gallery.create(folder, info)
        Preparation(checkpoint.preprocessing).claim(gallery)
        gallery.append(paths, galleries[width], existing='replace')
        matrix = compatibility_matrix(
            queries, galleries, GroundTruth.of(data),
            info={'compatibility': checkpoint.compatibility, 'data': 'the glyphs of this page'},
        )  # fmt: skip
        write_json(measured, matrix.to_dict())
    return Gallery(folder), CompatibilityMatrix.from_dict(json.loads(measured.read_text(encoding='utf-8')))


def read_matrix(checkpoint: Checkpoint, given: Path | None) -> CompatibilityMatrix | None:
    """The checkpoint's measured accuracy: a file of `sfsc-timm eval`, or matrix.json beside the checkpoint.

    Args:
        checkpoint: The model.
        given: The file; None looks beside the checkpoint, and takes no matrix of another one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no matrix, or another checkpoint's.
    """
    path = Path(checkpoint.source).expanduser()
    file = given or (path if path.is_dir() else path.parent) / 'matrix.json'
    if given is None and not (path.exists() and file.is_file()):
        return None
    try:
        matrix = CompatibilityMatrix.from_dict(json.loads(file.read_text(encoding='utf-8')))
    except FileNotFoundError:
        raise FileNotFoundError(f'--matrix must be a file of `sfsc-timm eval`, no file at {str(file)!r}') from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{str(file)!r} is no compatibility matrix: {error}; `sfsc-timm eval` writes one') from error
    declared = {matrix.info.get('compatibility'), *_declared(matrix)} - {None}
    if declared and declared != {checkpoint.compatibility}:
        if given is None:
            return None
        raise ValueError(f'{str(file)!r} was measured on another checkpoint; `sfsc-timm eval` measures this one')
    return matrix


def _declared(matrix: CompatibilityMatrix) -> set[str | None]:
    entries = matrix.info.get('checkpoints', ())
    return {entry.get('compatibility') for entry in entries if isinstance(entry, dict)}
