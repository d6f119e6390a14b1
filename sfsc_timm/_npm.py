"""Packages of npm, pinned and checked, for what is published nowhere else."""

from __future__ import annotations

import base64
import hashlib
import logging
import shutil
import subprocess  # npm has no Python interface
import tempfile
from pathlib import Path

__all__ = ['npm_pack']

_logger = logging.getLogger(__name__)


def npm_pack(specification: str, integrity: str, target: Path, purpose: str) -> Path:
    """Downloads a package by `npm pack`, unless it is there already, and checks it.

    Args:
        specification: Name and version, as `onnxruntime-web@1.30.0`.
        integrity: Its sha512, in npm's form (`npm pack --json` prints it).
        target: The file to write; it is there whole or not at all.
        purpose: What npm does here, for the message where there is none: 'it fetches the emoji packages'.

    Returns:
        The file.

    Raises:
        FileNotFoundError: npm is not installed.
        RuntimeError: npm failed, or the package is not the pinned one.
    """
    if target.exists() and _integrity(target) == integrity:
        return target
    npm = shutil.which('npm')
    if npm is None:
        raise FileNotFoundError(f'npm was not found: {purpose}. Install Node.js, which brings it, and run this again.')
    _logger.info('npm pack %s', specification)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [npm, 'pack', specification, '--ignore-scripts', '--silent']
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)  # noqa: S603
        found = list(Path(scratch).glob('*.tgz'))
        if done.returncode or len(found) != 1:
            raise RuntimeError(f'`npm pack {specification}` failed: {(done.stderr or done.stdout).strip()[-500:]}')
        fetched = _integrity(found[0])
        if fetched != integrity:
            raise RuntimeError(f'{specification} is not the pinned package: expected {integrity}, got {fetched}.')
        found[0].replace(target)
    return target


def _integrity(file: Path) -> str:
    return 'sha512-' + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
