"""A gallery of embeddings on disk: appended in whole shards, resumable, bound to the metric space it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._files import replacing, write_json
from ..evaluation.scores import check_embeddings

_FORMAT = 'sfsc-timm gallery 1'
_MANIFEST = 'manifest.json'
_DTYPES = {'float32': torch.float32, 'float16': torch.float16}


class IncompatibleGalleryError(ValueError):
    """Query and gallery embeddings come from different metric spaces: their similarities mean nothing."""


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery was embedded by.

    Attributes:
        model: Name of the model, for people.
        width: Width at which the gallery was embedded.
        embed_dim: Numbers per embedding.
        compatibility_id: Identifies the metric space (the checkpoint): sub-models of one checkpoint share it.
        dtype: Stored type, 'float32', or 'float16' for half the size.
    """

    model: str
    width: float
    embed_dim: int
    compatibility_id: str
    dtype: str = 'float32'

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f'dtype must be one of {list(_DTYPES)}, got {self.dtype!r}.')
        if self.embed_dim < 1:
            raise ValueError(f'embed_dim must be at least 1, got {self.embed_dim}.')


class Gallery:
    """Folder of `manifest.json` and shards `00000.safetensors`, ... that hold embeddings and the paths they belong to.

    :meth:`append` writes a shard under a temporary name, renames it, and only then enters it in the manifest, which is
    replaced in one step too. An interruption at any point leaves the gallery as it was before that call; the next one
    overwrites what was left over. One process may append at a time; any number may read.

    Args:
        folder: The gallery's folder; :meth:`create` makes one.

    Raises:
        FileNotFoundError: No gallery there, or a shard is missing.
        ValueError: The manifest is not one, or of a newer format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / _MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f'no gallery in {str(self.folder)!r}: {_MANIFEST} is missing; create one first.')
        manifest = _read_manifest(path)
        self.info = GalleryInfo(**manifest['info'])
        self._shards: list[dict[str, Any]] = manifest['shards']
        for shard in self._shards:
            if not (self.folder / shard['file']).is_file():
                raise FileNotFoundError(
                    f'gallery {str(self.folder)!r} lists {shard["file"]} ({shard["count"]} items), which is missing; '
                    'restore it, or build the gallery again.'
                )

    @classmethod
    def create(cls, folder: str | Path, info: GalleryInfo) -> Gallery:
        """Make an empty gallery, or open the one that is there if it was embedded in the same way (to resume).

        Raises:
            IncompatibleGalleryError: There is one already, embedded differently.
        """
        folder = Path(folder)
        if (folder / _MANIFEST).is_file():
            gallery = cls(folder)
            # The name is for people: a moved checkpoint is still the same one.
            if gallery.info != replace(info, model=gallery.info.model):
                raise IncompatibleGalleryError(
                    f'{str(folder)!r} already holds a gallery embedded by {gallery.info}, not by {info}; '
                    'choose another folder.'
                )
            return gallery
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, info, [])
        return cls(folder)

    def __len__(self) -> int:
        return sum(shard['count'] for shard in self._shards)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Path of every item, in order."""
        found: list[str] = []
        for shard in self._shards:
            with safe_open(self.folder / shard['file'], 'pt') as file:
                found += json.loads(file.metadata()['paths'])
        return tuple(found)

    def embeddings(self) -> Tensor:
        """All embeddings, in order, in the stored type, shape `(N, D)`."""
        result = torch.empty(len(self), self.info.embed_dim, dtype=_DTYPES[self.info.dtype])
        begin = 0
        for shard in self._shards:  # one after the other into place, so that no second copy of everything is made
            with safe_open(self.folder / shard['file'], 'pt') as file:
                result[begin : begin + shard['count']] = file.get_tensor('embeddings')
            begin += shard['count']
        return result

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that are not in the gallery yet, in their order: what is left to embed after a break."""
        present = set(self.paths)
        return [path for path in paths if path not in present]

    def append(self, paths: Sequence[str], embeddings: Tensor) -> None:
        """Add items, all or none of them.

        Args:
            paths: Path of each item, not in the gallery yet.
            embeddings: Embeddings at the gallery's width, shape `(N, D)`.

        Raises:
            ValueError: Shapes that do not fit, NaN, a path twice, or numbers beyond the stored type.
        """
        check_embeddings(embeddings, 'gallery', len(paths))
        if embeddings.shape[1] != self.info.embed_dim:
            raise ValueError(f'embeddings have {embeddings.shape[1]} numbers, the gallery holds {self.info.embed_dim}.')
        if len(set(self.missing(paths))) != len(paths):
            raise ValueError('paths holds an item twice, or one that is in the gallery already; use missing(paths).')
        stored = embeddings.detach().cpu().to(_DTYPES[self.info.dtype]).contiguous()
        if not stored.isfinite().all():
            raise ValueError(f'embeddings are too large for {self.info.dtype}; normalise them or store float32.')
        name = f'{len(self._shards):05d}.safetensors'
        with replacing(self.folder / name) as temporary:
            save_file({'embeddings': stored}, temporary, metadata={'paths': json.dumps(list(paths))})
        shards = [*self._shards, {'file': name, 'count': len(paths)}]
        _write_manifest(self.folder, self.info, shards)
        known = self.paths
        self._shards = shards
        self.__dict__['paths'] = (*known, *paths)

    def check(self, compatibility_id: str, embed_dim: int | None = None, *, force: bool = False) -> None:
        """Refuse queries from another metric space.

        Args:
            compatibility_id: The metric space of the queries.
            embed_dim: Numbers per query embedding; None does not check it.
            force: Accept another metric space all the same (another number of dimensions cannot be forced).

        Raises:
            IncompatibleGalleryError: With the reason.
        """
        if embed_dim not in (None, self.info.embed_dim):
            raise IncompatibleGalleryError(
                f'query embeddings have {embed_dim} numbers, those of gallery {str(self.folder)!r} '
                f'{self.info.embed_dim}: they are not of one metric space.'
            )
        if compatibility_id != self.info.compatibility_id and not force:
            raise IncompatibleGalleryError(
                f'gallery {str(self.folder)!r} was embedded by {self.info.model} at width {self.info.width:g} '
                f'(compatibility id {self.info.compatibility_id}), the queries come from compatibility id '
                f'{compatibility_id}. Distances between different metric spaces mean nothing. Embed the queries by a '
                'width of the same checkpoint, index the gallery again, or force it if you know better.'
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
        found = manifest['format']
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{str(path)!r} is not the manifest of a gallery ({error!r}).') from error
    if found != _FORMAT:
        raise ValueError(f'{str(path)!r} has format {found!r}, this version reads {_FORMAT!r}.')
    return dict(manifest)


def _write_manifest(folder: Path, info: GalleryInfo, shards: list[dict[str, Any]]) -> None:
    content = {'format': _FORMAT, 'count': sum(s['count'] for s in shards), 'info': asdict(info), 'shards': shards}
    write_json(folder / _MANIFEST, content, indent=2)
