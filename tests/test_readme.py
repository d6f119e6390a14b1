"""The Python examples of the README run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / 'README.md'


def test_examples_run() -> None:
    torch.manual_seed(0)
    namespace = {'images': torch.randn(2, 3, 64, 64), 'labels': torch.tensor([0, 1])}
    examples = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        exec(compile(example, str(README), 'exec'), namespace)
    query, gallery = namespace['query'], namespace['gallery']
    assert query.shape == gallery.shape == (2, 256)
    expected = namespace['small'](namespace['images'])
    assert (expected - query).abs().max() <= 1e-5 * query.abs().max()
    assert all(p.grad is not None for p in namespace['task'].parameters())
