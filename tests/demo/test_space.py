"""The folder for a Space holds all that it needs: its server starts from there, without PyTorch and this package."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from urllib.request import Request, urlopen

import numpy as np
import pytest
import yaml
from PIL import Image

from sfsc_timm.demo import write_space


@pytest.fixture
def space(site, tmp_path):
    size = write_space(site, tmp_path / 'space')
    return tmp_path / 'space', size


def test_its_server_runs_alone(space, site, tmp_path):
    blocked = tmp_path / 'blocked'
    blocked.mkdir()
    for name in ('torch', 'timm', 'sfsc_timm', 'torchvision'):
        (blocked / f'{name}.py').write_text(f'raise ImportError("{name} is not in a Space")')
    environment = {**os.environ, 'PYTHONPATH': str(blocked), 'HOST': '127.0.0.1', 'PORT': '0'}
    command = [sys.executable, str(space[0] / 'app.py')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as running:
        try:
            url = running.stdout.readline().strip()
            assert urlopen(url).read() == b'<!doctype html><title>page</title>'
            query = Request(f'{url}search?of=abc', np.asarray(site.embeddings[7], '<f4').tobytes())
            assert json.load(urlopen(query))['matches'][0] == {'item': 7, 'score': 1.0, 'label': 'picture 7'}
            assert Image.open(io.BytesIO(urlopen(f'{url}images/7').read())).size == (20, 24)
            assert urlopen(f'{url}examples/0').read() == site.examples[0].read_bytes()
            assert urlopen(f'{url}runtime/ort.wasm').read() == b'program'
        finally:
            running.kill()


def test_what_the_hub_reads(space):
    folder, size = space
    _, front, text = (folder / 'README.md').read_text(encoding='utf-8').split('---\n', 2)
    matter = yaml.safe_load(front)
    assert (matter['sdk'], matter['app_port']) == ('docker', 7860)
    assert matter['custom_headers']['cross-origin-opener-policy'] == 'same-origin'
    assert matter['custom_headers']['cross-origin-embedder-policy'] == 'require-corp'
    assert 'width 0.25 of `tiny`' in text
    assert 'pip install --no-cache-dir -r requirements.txt' in (folder / 'Dockerfile').read_text()
    names = [line.split('==')[0] for line in (folder / 'requirements.txt').read_text().split()]
    assert names == ['numpy', 'pillow', 'onnxruntime']
    assert size == sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def test_nothing_of_this_machine_is_in_it(space, tmp_path):
    folder, _ = space
    for file in folder.rglob('*'):
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_pictures_lose_their_metadata(site, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = 'where I live'
    Image.new('RGB', (40, 30), 'blue').save(site.images[0], exif=exif)
    write_space(site, tmp_path / 'space')
    assert b'where I live' in site.images[0].read_bytes()
    assert not any(b'where I live' in file.read_bytes() for file in (tmp_path / 'space' / 'site' / 'images').iterdir())


def test_folders_with_something_in_them_are_left_alone(site, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('x')
    with pytest.raises(ValueError, match='--space must be an empty folder'):
        write_space(site, tmp_path / 'mine')
    assert [file.name for file in (tmp_path / 'mine').iterdir()] == ['thesis.txt']


def test_a_picture_that_is_gone_is_named(site, tmp_path):
    site.images[3].unlink()
    with pytest.raises(FileNotFoundError, match=r'picture 3\.png.*Index the images again'):
        write_space(site, tmp_path / 'space')
