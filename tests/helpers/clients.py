"""Client processes: each runs a piece of Python with the real huggingface_hub, its own environment and its own cache.

Importing torch and torchvision takes seconds, so a fork server imports them once. Whatever talks to the Hub is imported
by the client itself, after its environment is set.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.loopback_state import TOKEN, Hold, Hub

_CONTEXT: Any = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['torch', 'torchvision'])
_LIMIT = 60  # seconds, far more than any client takes


@dataclass
class Client:
    """One started process.

    Attributes:
        process: It.
        folder: Where its output goes.
    """

    process: Any
    folder: Path

    @property
    def error(self) -> str:
        """What it wrote on standard error."""
        return (self.folder / 'stderr').read_text()

    @property
    def output(self) -> str:
        """What it wrote on standard output."""
        return (self.folder / 'stdout').read_text()

    def result(self) -> Any:
        """Waits for it, and reads the last line of its output as JSON (None if there is no output)."""
        self.process.join(_LIMIT)
        assert self.process.exitcode == 0, f'exit status {self.process.exitcode}\n{self.error}'
        return json.loads(self.output.splitlines()[-1]) if self.output else None

    def failure(self) -> str:
        """Waits for it to fail, and gives the last line of its standard error."""
        self.process.join(_LIMIT)
        assert self.process.exitcode == 1, f'exit status {self.process.exitcode}\n{self.error}'
        return self.error.strip().splitlines()[-1]

    def kill_at(self, hold: Hold) -> None:
        """Kills it once a request of it is held up."""
        assert hold.reached.wait(_LIMIT), self.error
        self.process.kill()
        self.process.join(_LIMIT)
        assert self.process.exitcode == -9


@dataclass
class Clients:
    """Starts clients of one Hub in folders of their own."""

    hub: Hub
    folder: Path
    _started: int = 0

    def start(self, code: str, **environment: str | None) -> Client:
        """Starts a client.

        Args:
            code: What it runs.
            **environment: Its variables beside the usual ones; None removes one.
        """
        self._started += 1
        folder = self.folder / str(self._started)
        folder.mkdir()
        variables: dict[str, str | None] = {
            'HF_ENDPOINT': self.hub.url,
            'HF_HOME': str(folder / 'home'),
            'TMPDIR': str(folder),
            'HF_TOKEN': TOKEN,
            'HF_HUB_DISABLE_XET': '1',
            'HF_HUB_DISABLE_TELEMETRY': '1',
            'HF_HUB_DISABLE_PROGRESS_BARS': '1',
            'HF_HUB_OFFLINE': None,
            'CUDA_VISIBLE_DEVICES': '',
            'NO_PROXY': '127.0.0.1',
            'no_proxy': '127.0.0.1',
            **environment,
        }
        process = _CONTEXT.Process(target=_run, args=(textwrap.dedent(code), variables, str(folder)), daemon=True)
        process.start()
        return Client(process, folder)

    def run(self, code: str, **environment: str | None) -> Any:
        """Runs a client to its end; returns the last line of its output, read as JSON."""
        return self.start(code, **environment).result()

    def fail(self, code: str, **environment: str | None) -> str:
        """Runs a client that has to fail; returns the last line of its traceback."""
        return self.start(code, **environment).failure()


def _run(code: str, variables: dict[str, str | None], folder: str) -> None:
    """What a client process does."""
    assert 'huggingface_hub' not in sys.modules, 'the fork server must not import what reads the environment'
    os.chdir(folder)
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), number)
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    import torch

    tempfile.tempdir = None  # read TMPDIR again
    torch.set_num_threads(1)
    exec(compile(code, 'client', 'exec'), {'__name__': '__main__'})
