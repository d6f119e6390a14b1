"""What the READMEs hold: fenced blocks with what is to become of them, links, and names of this repository."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[2]
_TOPS = ('benchmarks', 'weights', 'sfsc_timm')
READMES = [ROOT / 'README.md', *sorted(path for top in _TOPS for path in (ROOT / top).rglob('README.md'))]

_BLOCK = re.compile(
    r'(?:^<!-- (?P<fate>not run|parsed): \S[^\n]* -->\n)?(?:^<!-- [^\n]* -->\n)*'
    r'^```(?P<language>\w*)\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block: its first line in the file, language, text, and 'run', 'parsed' or 'not run'."""

    line: int
    language: str
    text: str
    fate: str


def blocks(file: Path, *languages: str) -> list[Block]:
    """The blocks of a file in these languages, in order."""
    text = file.read_text(encoding='utf-8')
    found = (
        Block(text.count('\n', 0, m.start('text')) + 1, m['language'], m['text'], m['fate'] or 'run')
        for m in _BLOCK.finditer(text)
    )
    return [block for block in found if block.language in languages]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a shell block."""
    for line in block.text.replace('\\\n', ' ').splitlines():
        for command in re.split(r'\s&&\s', line):
            if words := shlex.split(command, comments=True):
                yield words


class _Parsed(BaseException):
    """A program has parsed its arguments, and stops."""


def parse(words: list[str]) -> argparse.Namespace:
    """Lets the parser of a documented program read its arguments, and goes no further.

    Raises:
        SystemExit: They are wrong; the message is on standard error.
        ValueError: No way is known to parse such a command.
    """
    match words:
        case ['sfsc-timm', *arguments]:
            return _parse_module('sfsc_timm', arguments)
        case ['python', '-m', module, *arguments]:
            return _parse_module(module, arguments)
        case ['torchrun', *arguments]:
            from torch.distributed.run import parse_args

            started = parse_args(arguments)
            flag = ['-m'] if started.module else []
            return parse(['python', *flag, started.training_script, *started.training_script_args])
    raise ValueError(f'a parsed command must be one of sfsc-timm, python -m or torchrun -m, got {shlex.join(words)!r}')


def _parse_module(module: str, arguments: list[str]) -> argparse.Namespace:
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: list[str] | None = None, namespace: None = None) -> None:
        raise _Parsed(parse_args(self, args, namespace))

    patched = mock.patch.object(argparse.ArgumentParser, 'parse_args', stop)
    with patched, mock.patch.object(sys, 'argv', [module, *arguments]):
        try:
            runpy.run_module(module, run_name='__main__', alter_sys=False)
        except _Parsed as parsed:
            namespace: argparse.Namespace = parsed.args[0]
            return namespace
    raise ValueError(f'{module} must parse its arguments by argparse')


def links(file: Path) -> list[str]:
    """Targets of a file's links and pictures that lie in this repository."""
    targets = re.findall(r'\]\(([^)\s]+)\)', file.read_text(encoding='utf-8'))
    return [target for target in targets if not target.startswith(('http:', 'https:'))]


def anchors(file: Path) -> set[str]:
    """What links into a Markdown file may name: its headings, as GitHub spells them."""
    headings = re.findall(r'^#+ (.*)$', file.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def code_spans(file: Path) -> list[str]:
    """What stands in single backticks, outside of blocks."""
    prose = re.sub(r'^```.*?^```$', '', file.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r'`([^`\n]+)`', prose)
