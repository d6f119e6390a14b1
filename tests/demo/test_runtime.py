"""onnxruntime-web is fetched once, of the pinned version, or found where it is said to lie."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import sys
import tarfile

import pytest

from sfsc_timm.demo import runtime
from sfsc_timm.demo.runtime import find_runtime

FILES = {'ort.mjs': b'// loader', 'ort.wasm': b'program' * 100}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm that serves a small package, and counts."""
    store, tools = tmp_path / 'store', tmp_path / 'tools'
    store.mkdir()
    tools.mkdir()
    with tarfile.open(store / 'package.tgz', 'w:gz') as archive:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f'package/dist/{name}')
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    script = tools / 'npm'
    script.write_text(
        f'#!{sys.executable}\nimport pathlib, shutil, sys\nstore = pathlib.Path({str(store)!r})\n'
        'open(store / "log", "a").write(sys.argv[2] + "\\n")\n'
        'if (store / "down").exists(): sys.exit("npm error network unreachable")\n'
        'shutil.copy(store / "package.tgz", "onnxruntime-web.tgz")\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tools}{os.pathsep}{os.environ["PATH"]}')
    digest = hashlib.sha512((store / 'package.tgz').read_bytes()).digest()
    monkeypatch.setattr(runtime, '_INTEGRITY', 'sha512-' + base64.b64encode(digest).decode())
    monkeypatch.setattr(runtime, '_FILES', {name: hashlib.sha256(c).hexdigest() for name, c in FILES.items()})
    return store


def test_it_is_fetched_once_and_kept_compressed_too(npm, tmp_path):
    for _ in range(2):
        folder = find_runtime(tmp_path / 'cache')
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES
        assert gzip.decompress((folder / 'ort.wasm.gz').read_bytes()) == FILES['ort.wasm']
    assert (npm / 'log').read_text().split() == ['onnxruntime-web@1.30.0']
    assert not list(folder.glob('*.tgz'))


def test_what_was_damaged_is_fetched_again(npm, tmp_path):
    folder = find_runtime(tmp_path / 'cache')
    (folder / 'ort.mjs').write_bytes(b'else')
    assert (find_runtime(tmp_path / 'cache') / 'ort.mjs').read_bytes() == FILES['ort.mjs']


def test_troubles_are_explained(npm, tmp_path, monkeypatch):
    (npm / 'down').touch()
    with pytest.raises(ConnectionError, match=r'network unreachable; try again .* by --ort-dir'):
        find_runtime(tmp_path / 'cache')
    (npm / 'down').unlink()
    (npm / 'package.tgz').write_bytes(b'another')
    with pytest.raises(ConnectionError, match='is not the pinned package'):
        find_runtime(tmp_path / 'cache')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'npm was not found.*--ort-dir names a folder.* Install Node\.js'):
        find_runtime(tmp_path / 'cache')


def test_a_folder_that_is_given_is_checked(npm, tmp_path):
    given = tmp_path / 'dist'
    given.mkdir()
    with pytest.raises(FileNotFoundError, match=r'--ort-dir must hold ort\.mjs, ort\.wasm of onnxruntime-web@1\.30\.0'):
        find_runtime(tmp_path / 'cache', given)
    for name, content in FILES.items():
        (given / name).write_bytes(content)
    assert find_runtime(tmp_path / 'cache', given) == given
    assert not (npm / 'log').exists()
    (given / 'ort.mjs').write_bytes(b'// of another version')
    with pytest.raises(ValueError, match=r"ort\.mjs' is not that of onnxruntime-web@1\.30\.0, by its sha256"):
        find_runtime(tmp_path / 'cache', given)
