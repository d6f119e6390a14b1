"""The demo as a folder for a Hugging Face Space: a server of NumPy, Pillow and ONNX Runtime, without PyTorch."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .._files import write_json
from ..data import _decode, load_image
from .runtime import RUNTIME_VERSION
from .server import CONFIG, EMBEDDINGS, ITEMS, Site, shown

__all__ = ['write_space']

_SERVER = Path(__file__).with_name('server')
_APP = '''"""Serves the demo; `python app.py` starts it."""

import os
import sys
from pathlib import Path

from demo_server import DemoServer, Routes, read_site
from demo_server.decode import load_image

routes = Routes(read_site(Path(__file__).resolve().with_name('site')), load_image)
server = DemoServer(routes, os.environ.get('HOST', '0.0.0.0'), int(os.environ.get('PORT', '7860')))
sys.stdout.write(f'{server.url}\\n')
sys.stdout.flush()
server.serve_forever()
'''
_DOCKERFILE = """FROM python:3.11-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
USER user
CMD ["python", "app.py"]
"""
_README = """---
title: {title}
emoji: 🔎
colorFrom: blue
colorTo: yellow
sdk: docker
app_port: 7860
pinned: false
custom_headers:
  cross-origin-opener-policy: same-origin
  cross-origin-embedder-policy: require-corp
  cross-origin-resource-policy: same-origin
---

# {title}

The browser embeds a picture at width {browser:g} of `{model}`; the server searches {items} pictures that width
{gallery:g} embedded. The headers above let the browser use threads, where the page is not inside another one.

Made by `sfsc-timm demo --space`. The server needs NumPy, Pillow and ONNX Runtime; here it runs by

```sh
pip install -r requirements.txt && python app.py
```

`site/images` holds the gallery's pictures as the page shows them, at most 256 pixels and without metadata. The
browser's ONNX Runtime Web {runtime} is Microsoft's, under the MIT licence.
"""
_LARGE = ('gz', 'jpg', 'npy', 'onnx', 'png', 'wasm')  # the Hub takes binary files by Git LFS alone
_PACKAGES = ('numpy', 'pillow', 'onnxruntime')


def write_space(site: Site, folder: Path, title: str = 'Search with a small query') -> int:
    """Writes all that the demo needs elsewhere.

    Args:
        site: Of `make_site`.
        folder: Where to; it must be empty, or not there.
        title: Of the Space.

    Returns:
        Bytes of the folder.

    Raises:
        ValueError: The folder holds something.
        FileNotFoundError: A picture of the gallery is gone.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f'--space must be an empty folder, or none yet, {str(folder)!r} holds files; choose another')
    (folder / 'site').mkdir(parents=True, exist_ok=True)
    _write_site(site, folder / 'site')
    shutil.copytree(_SERVER, folder / 'demo_server', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(str(_decode.__file__), folder / 'demo_server' / 'decode.py')
    texts = {
        'app.py': _APP,
        'Dockerfile': _DOCKERFILE,
        'requirements.txt': ''.join(f'{name}=={version(name)}\n' for name in _PACKAGES),
        'README.md': _README.format(
            title=title,
            browser=site.config['browser']['width'],
            model=site.config['model'],
            items=len(site.images),
            gallery=site.config['gallery']['width'],
            runtime=RUNTIME_VERSION,
        ),
        '.gitattributes': ''.join(
            f'*.{kind} filter=lfs diff=lfs merge=lfs -text\n' for kind in ('onnx', 'npy', 'wasm')
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def _write_site(site: Site, folder: Path) -> None:
    shutil.copytree(site.page, folder / 'page')
    shutil.copytree(site.runtime, folder / 'runtime')
    for name in ('models', 'images', 'examples'):
        (folder / name).mkdir()
    for width, model in site.models.items():
        shutil.copy(model, folder / 'models' / f'{width:g}.onnx')
    np.save(folder / EMBEDDINGS, site.embeddings, allow_pickle=False)
    images = [_write_picture(path, folder / 'images', f'{i:06}') for i, path in enumerate(site.images)]
    examples = []
    for i, path in enumerate(site.examples):
        examples.append(f'examples/{i}{path.suffix}')
        shutil.copy(path, folder / examples[-1])
    (folder / CONFIG).write_text(json.dumps(site.config, indent=1), encoding='utf-8')
    write_json(folder / ITEMS, {'images': images, 'labels': list(site.labels), 'examples': examples}, indent=0)


def _write_picture(path: Path, folder: Path, name: str) -> str:
    try:
        body, media_type = shown(load_image(path))
    except OSError as error:
        raise FileNotFoundError(f'{error} Index the images again, or restore the file.') from error
    file = folder / f'{name}.{"png" if media_type == "image/png" else "jpg"}'
    file.write_bytes(body)
    return f'{folder.name}/{file.name}'
