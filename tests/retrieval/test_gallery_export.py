"""Galleries as files for other databases, and the README's example of one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.readme import ROOT, blocks

from sfsc_timm.retrieval import FileState, Gallery, GalleryInfo, LanceGallery, export

VALUES = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
PATHS = [f'/data/{i}.jpg' for i in range(7)]


def files(folder: Path, dtype: str = 'float32') -> Gallery:
    gallery = Gallery.create(folder, GalleryInfo('m', 0.5, 4, 'abc', dtype))
    gallery.append(PATHS[:3], VALUES[:3])
    gallery.append(PATHS[3:], VALUES[3:], [FileState(9, 10, 'f' * 64), None, None, None])
    return gallery


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_npy(tmp_path: Path, dtype: str) -> None:
    gallery = files(tmp_path / 'g', dtype)
    export(gallery, tmp_path / 'items.npy', 'npy')
    assert torch.equal(torch.from_numpy(np.load(tmp_path / 'items.npy')), gallery.embeddings())
    lines = [json.loads(line) for line in (tmp_path / 'items.npy.jsonl').read_text().splitlines()]
    assert lines == [{'path': path, 'width': 0.5} for path in PATHS]
    with pytest.raises(ValueError, match='format must be one of'):
        export(gallery, tmp_path / 'items.csv', 'csv')  # type: ignore[arg-type]
    gallery.remove(PATHS)
    with pytest.raises(ValueError, match='it is empty'):
        export(gallery, tmp_path / 'items.npy', 'npy')


@pytest.mark.lance
def test_parquet_into_qdrant_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('lancedb')
    parquet = pytest.importorskip('pyarrow.parquet')
    gallery = LanceGallery.create(tmp_path / 'g', GalleryInfo('m', 0.5, 4, 'abc'), root='/data', columns=['camera'])
    gallery.append(PATHS, VALUES, labels={'camera': [*'abcabc', None]})
    export(gallery, tmp_path / 'items.parquet', 'parquet')
    table = parquet.read_table(tmp_path / 'items.parquet')
    assert table['path'].to_pylist() == PATHS
    assert table['camera'].to_pylist() == [*'abcabc', None]
    assert table['embedding'].to_pylist() == VALUES.tolist()
    qdrant = pytest.importorskip('qdrant_client')
    monkeypatch.chdir(tmp_path)
    example = next(b.text for b in blocks(ROOT / 'sfsc_timm/retrieval/README.md', 'python') if 'Qdrant' in b.text)
    names: dict[str, Any] = {}
    exec(example, names)
    condition = qdrant.models.FieldCondition(key='camera', match=qdrant.models.MatchValue(value='b'))
    found = names['client'].query_points(
        'photos', VALUES[1].tolist(), query_filter=qdrant.models.Filter(must=[condition]), limit=2
    )
    assert [point.payload['path'] for point in found.points] == ['/data/1.jpg', '/data/4.jpg']
    scores = torch.nn.functional.cosine_similarity(VALUES[1], VALUES[[1, 4]])
    assert [point.score for point in found.points] == pytest.approx(scores.tolist(), abs=1e-5)
