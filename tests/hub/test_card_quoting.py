"""Strings from a foreign run cannot become headings, links, HTML or the end of a block of code in a card."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import yaml

from sfsc_timm.checkpoints.measurements import WidthCost
from sfsc_timm.data import Preprocessing
from sfsc_timm.evaluation import CompatibilityMatrix
from sfsc_timm.hub.card import model_card
from sfsc_timm.hub.card_content import About, CardContent, PublishedWidth
from sfsc_timm.hub.quoting import fenced, inline

EVIL = [
    'name\n\n# Owned\n\n[click](https://evil.example)',
    '```\n\n# Owned\n\n```sh',
    '````\n# Owned\n````',
    '<script>alert(1)</script> ![x](https://evil.example/x.png)',
    '</details>\n# Owned',
    '---\nlicense: owned\n---\n# Owned',
    'a | b | c\n| Owned |',
    '\x1b[31mred\x07\u202e',
]


def card(text: str, **arguments: Any) -> str:
    cost = WidthCost(1000, 1000, 1.0, text, (3, 32, 32))
    parts = tuple(PublishedWidth(w, 'resnet18d', True, cost, 'fc', 10) for w in (0.5, 1.0))
    square = np.full((2, 2), 50.0)
    matrix = CompatibilityMatrix((0.5, 1.0), square, square, {1: square}, names=(text, 'φ'))
    matrix.info.update(data=text)
    content = CardContent(
        'user/name', 'sfsc_resnet18d', 'abc', 16, Preprocessing(), parts, About(),
        {'data': text, 'command': text, 'note': text, **arguments}, matrix, True,
    )  # fmt: skip
    return model_card(content)


def outside_of_code(text: str) -> str:
    """Markdown without front matter and fenced blocks, by CommonMark's rule for their end."""
    body = text.split('\n---\n\n', 1)[1]
    kept, fence = [], ''
    for line in body.splitlines():
        mark = re.match(r'(`{3,})', line)
        if fence:
            if mark and len(mark[1]) >= len(fence) and not line.strip('`'):
                fence = ''
        elif mark:
            fence = mark[1]
        else:
            kept.append(line)
    assert not fence
    return '\n'.join(kept)


@pytest.mark.parametrize('text', EVIL)
def test_cards_of_foreign_runs(text: str) -> None:
    made = card(text, **{text: text})
    shown = outside_of_code(made)
    headings = [line.split(' on ')[0] for line in shown.splitlines() if line.startswith('#')]
    normal = outside_of_code(card('emoji', emoji='emoji'))
    assert headings == [line.split(' on ')[0] for line in normal.splitlines() if line.startswith('#')]
    for pattern in (r'(?<!\\)<script', r'(?<!\\)\]\(https://evil', r'\x1b', '\u202e'):
        assert not re.search(pattern, shown), pattern
    assert shown.count('<details>') == shown.count('</details>') == 1
    tables = [
        [line.replace(r'\|', '').count('|') for line in part.splitlines() if line.startswith('|')]
        for part in (shown, normal)
    ]
    assert tables[0] == tables[1]
    front = made.split('---\n')[1] if not text.startswith('---') else made.split('\n---\n\n')[0].removeprefix('---\n')
    assert 'license' not in yaml.safe_load(front)


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ('market1501', 'my_data-v1.0', 'x86_64 CPU, 2 threads, torch 2.14.1', 'φ1/16'):
        assert inline(name) == name
    assert fenced('sfsc-timm train', 'sh') == '```sh\nsfsc-timm train\n```'
