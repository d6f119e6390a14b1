"""One malformed input, and what became of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfsc_timm.cli.main import main

HANG = 10.0
"""Seconds after which a case counts as hanging."""
GOOD = ('refused', 'warned', 'same result')
BAD = ('traceback', 'silently accepted', 'vague refusal', 'hang')


@dataclass(frozen=True)
class Case:
    """A malformed input.

    Attributes:
        group: What kind of input it is.
        name: What is wrong with it.
        prepare: Makes the input in a folder of its own and returns the command line.
        needle: Regular expression that the refusal must hold: the file or key at fault.
        baseline: The output of a sound input; a case that succeeds with the same is harmless. None: success is a
            fault, unless a warning holds the needle.
        passed: Regular expression of a later refusal, by which one sees that the input was accepted.
    """

    group: str
    name: str
    prepare: Callable[[Path], list[str]]
    needle: str
    baseline: Callable[[], str] | None = None
    passed: str | None = None

    def __post_init__(self) -> None:
        re.compile(self.needle)


@dataclass(frozen=True)
class Outcome:
    """What became of a case: one of `GOOD` or `BAD`, and what was said."""

    case: Case
    kind: str
    said: str
    seconds: float

    def __str__(self) -> str:
        said = ' '.join(self.said.split())[-300:]
        return f'{self.kind}: {self.case.group} / {self.case.name} ({self.seconds:.1f} s): {said}'


class _TooLong(BaseException):
    """The time is up."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Stops what takes longer."""

    def stop(*_: Any) -> None:
        raise _TooLong

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, in case a callback of C swallows the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def call(argv: list[str], seconds: float = HANG) -> tuple[int | str, str, str]:
    """Runs a command in this process.

    Returns:
        Exit status ('traceback' or 'hang' where there is none), standard output, and standard error with warnings.
    """
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    logger = logging.getLogger('sfsc_timm')
    logger.addHandler(handler)
    status: int | str
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            limit(seconds),
        ):
            warnings.simplefilter('ignore')
            try:
                status = main(argv)
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else 1
            except Exception:
                err.write(traceback.format_exc())
                status = 'traceback'
    except _TooLong:
        status = 'hang'
    finally:
        logger.removeHandler(handler)
    return status, out.getvalue(), err.getvalue()


def judge(case: Case, folder: Path) -> Outcome:
    """Runs a case in a folder of its own."""
    folder.mkdir()
    argv = case.prepare(folder)
    start = time.perf_counter()
    status, out, err = call(argv)
    seconds = time.perf_counter() - start
    if status in ('traceback', 'hang'):
        return Outcome(case, str(status), err, seconds)
    if status == 0:
        if case.baseline is not None and comparable(out) == comparable(case.baseline()):
            return Outcome(case, 'same result', out, seconds)
        return Outcome(case, 'warned' if re.search(case.needle, err) else 'silently accepted', out + err, seconds)
    if 'Traceback' in err:
        return Outcome(case, 'traceback', err, seconds)
    if re.search(case.needle, err, re.DOTALL):
        return Outcome(case, 'refused', err, seconds)
    is_later = case.passed is not None and re.search(case.passed, err)
    return Outcome(case, 'silently accepted' if is_later else 'vague refusal', err, seconds)


def comparable(output: str) -> Any:
    """What a command found: of a search the matches, with scores to four digits."""
    try:
        found = json.loads(output)
    except ValueError:
        return output
    return [
        [(Path(match['path']).name, round(match['score'], 4)) for match in one['matches']] for one in found['results']
    ]
