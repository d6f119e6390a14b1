"""Times of every form of a width: they take turns, and a table, a file and a picture come of them."""

from __future__ import annotations

import json
import time
from itertools import groupby
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import save_whole, tiny
from torch import nn

from sfsc_timm.bench import Timing, bench_table, measure_width, plot_accuracy_latency
from sfsc_timm.cli.main import main
from sfsc_timm.evaluation import latencies


def test_forms_take_turns() -> None:
    calls: list[str] = []
    functions = {name: lambda _, name=name: (calls.append(name), time.sleep(0.001)) for name in 'ab'}
    seconds = latencies(functions, torch.zeros(1), repeats=2, warmup=1)
    # The warm-up of one call each, then two turns, and another first every time: a b a bb a.
    runs = [(name, len(list(group))) for name, group in groupby(calls)]
    assert [name for name, _ in runs] == list('ababa')
    assert [count > 2 for _, count in runs] == [False, False, True, True, True]  # called for a while before it is timed
    assert seconds.keys() == {'a', 'b'}
    assert all(0.001 <= value < 0.02 for value in seconds.values())  # one call alone


def test_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = measure_width(model.eval(), 0.5, (3, 128, 128), ['eager'], batches=(1, 4), repeats=2)
    assert [(timing.width, timing.form, timing.batch) for timing in found] == [(0.5, 'eager', 1), (0.5, 'eager', 4)]
    for timing in found:
        assert timing.images_per_second == pytest.approx(1000 * timing.batch / timing.milliseconds, rel=0.01)
        if Path('/proc/self/status').is_file():
            # what the convolution gives is in memory once at least
            assert timing.memory_mb >= 0.9 * timing.batch * 64 * 128 * 128 * 4 / 1e6


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib')
    timings = [
        Timing(width, form, 1, milliseconds, 1000 / milliseconds, 3.0 if form == 'onnx' else None)
        for width, form, milliseconds in (
            (0.25, 'onnx', 2.0),
            (0.25, 'int8', 1.0),
            (1.0, 'onnx', 8.0),
            (1.0, 'int8', 5.0),
        )
    ]
    rows = bench_table(timings)
    assert rows[0] == {
        'width': '0.25', 'batch': '1', 'onnx ms': '2.00', 'int8 ms': '1.00 (2.00x)', 'images/s': '1000', 'onnx MB': '3',
    }  # fmt: skip
    assert rows[1]['int8 ms'] == '5.00 (1.60x)'
    assert plot_accuracy_latency(timings, None, tmp_path / 'bench.png', 'a machine').stat().st_size > 10_000


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('rich')
    pytest.importorskip('matplotlib')
    checkpoint, output = str(save_whole(tiny(), tmp_path / 'whole')), tmp_path / 'bench'
    arguments = ['bench', checkpoint, '--forms', 'eager', '--no-memory', '--repeats', '2', '--output', str(output)]
    assert main([*arguments, '--widths', '0.25', '1']) == 0
    assert 'eager' in capsys.readouterr().out
    written = json.loads((output / 'bench.json').read_text())
    assert [timing['width'] for timing in written['timings']] == [0.25, 1.0]
    assert sorted(file.name for file in output.iterdir()) == ['bench.json', 'bench.png']
    for more, message in (
        (['--widths', '0.3'], '--widths must be among'),
        (['--flip'], 'leave it out'),
        (['--matrix', str(tmp_path / 'none.json')], 'no matrix at'),
    ):
        assert main([*arguments, *more]) == 1
        assert message in capsys.readouterr().err
