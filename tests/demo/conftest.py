"""A small site, whose server's width is a stand-in that needs no ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_site import PREPROCESSING, mean_colours
from PIL import Image

from sfsc_timm.data import load_image
from sfsc_timm.demo.server import DemoServer, Routes, Site, normalised


@pytest.fixture
def site(tmp_path: Path) -> Site:
    random = np.random.default_rng(0)
    for name in ('page', 'runtime', 'images', 'examples'):
        (tmp_path / name).mkdir()
    (tmp_path / 'page' / 'index.html').write_text('<!doctype html><title>page</title>')
    (tmp_path / 'page' / 'main.js').write_text('// script')
    (tmp_path / 'runtime' / 'ort.wasm').write_bytes(b'program')
    (tmp_path / 'runtime' / 'ort.wasm.gz').write_bytes(b'packed')
    (tmp_path / 'model.onnx').write_bytes(b'model')
    (tmp_path / 'secret.txt').write_text('not for visitors')
    images = []
    for i in range(20):
        images.append(tmp_path / 'images' / f'picture {i}.png')
        Image.fromarray(random.integers(0, 256, (24, 20, 3), np.uint8)).save(images[-1])
    embeddings = normalised(random.normal(size=(20, 48)).astype(np.float32))
    config = {
        'compatibility': 'abc', 'k': 5, 'flip': False, 'preprocessing': PREPROCESSING, 'matrix': None, 'model': 'tiny',
        'gallery': {'items': 20, 'width': 1.0, 'embed_dim': 48}, 'runtime': '1',
        'browser': {'width': 0.25, 'model': 'models/0.25.onnx', 'bytes': 5}, 'server': [], 'examples': ['one'],
    }  # fmt: skip
    example = tmp_path / 'examples' / 'one.png'
    Image.new('RGB', (9, 9), 'red').save(example)
    return Site(
        config, embeddings, images, [path.stem for path in images], [example], tmp_path / 'page',
        tmp_path / 'runtime', {0.25: tmp_path / 'model.onnx'},
    )  # fmt: skip


@pytest.fixture
def server(site: Site) -> Iterator[DemoServer]:
    running = DemoServer(Routes(site, load_image, {1.0: mean_colours}), port=0)
    thread = threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.05})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
