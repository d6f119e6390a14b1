"""The pictures: what they show, that they are written whole, and that they leave matplotlib's state alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_compatibility_matrix import ASYMMETRIC, PAPER, matrix_of

from sfsc_timm.evaluation import Match, plot_accuracy_cost, plot_contact_sheet, plot_matrix, plot_training
from sfsc_timm.evaluation import figure as figure_module

matplotlib = pytest.importorskip('matplotlib')
image = pytest.importorskip('PIL.Image')

MACS = (278_000_000, 1_060_000_000, 2_330_000_000, 4_090_000_000)
ROWS = [
    {'step': i, 'loss_0.25': 3 / (i + 1), 'loss_1.0': 2 / (i + 1), 'conflict_rate': 0.5, 'mAP_1.0': i if i % 2 else ''}
    for i in range(6)
]


@pytest.fixture
def texts(monkeypatch):
    """Every text of the figures written during the test."""
    found = []

    def capture(figure):
        from matplotlib.text import Text

        found.extend(t.get_text() for t in figure.findobj(Text) if t.get_text())

    from matplotlib.figure import Figure

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kw: (savefig(self, *args, **kw), capture(self))[0])
    return found


def picture(value=128, size=(6, 4)):
    return np.full((*size, 3), value, np.uint8)


def draw_all(folder):
    matrix = matrix_of(PAPER, macs=MACS)
    return [
        plot_matrix(matrix, folder / 'matrix.png'),
        plot_accuracy_cost(matrix, folder / 'cost.png'),
        plot_training(ROWS, folder / 'training.png'),
        plot_contact_sheet([Match(picture())], [[Match(picture(0), True), Match(picture(9), False)]], folder / 's.png'),
    ]


def test_pictures_are_the_same_every_time_and_nothing_else_is_left(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    first, second = draw_all(tmp_path / 'a'), draw_all(tmp_path / 'b')
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert image.open(a).size > (300, 200)
    assert sorted((tmp_path / 'a').iterdir()) == sorted(first)


def test_import_loads_no_plotting_and_plots_leave_the_state_alone(tmp_path):
    root, here = Path(figure_module.__file__).parents[2], Path(__file__).parent
    code = f"""
import sys
sys.path[:0] = [{str(root)!r}, {str(here)!r}, {str(here.parent)!r}]
import sfsc_timm.evaluation
assert not {{'matplotlib', 'sklearn', 'faiss', 'rich'}} & set(sys.modules)
import pathlib, matplotlib
state = lambda: {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != 'backend'}}
before = state()
import test_plots
test_plots.draw_all(pathlib.Path({str(tmp_path)!r}))
assert 'matplotlib.pyplot' not in sys.modules
assert state() == before
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_matrix_shows_every_number_and_marks_failures(tmp_path, texts):
    matrix = matrix_of(ASYMMETRIC, params=(1, 2, 3, 4), macs=MACS)
    plot_matrix(matrix, tmp_path / 'm.png', title='Something')
    for value in matrix.mAP.flat:
        assert f'{value:.1f}' in texts
    failures = [text for text in texts if text.startswith('✗')]
    assert len(failures) == 12 - matrix.num_compatible
    assert '✗ −5.0' in failures  # φ1/16 in a gallery of φ1/4: 50.85 against 55.83
    assert texts.count('self-test') == 4
    assert [text for text in texts if text.startswith('U ')] == [
        'U −0.44',
        'U −0.20',
        'U −0.02',
        'U -',
        'U −0.03',
        'U 0.26',
    ]
    assert 'Something' in texts
    assert any('φ9/16' in text and '2.33G MACs' in text for text in texts)


def test_contact_sheet_tells_right_from_wrong_without_colour(tmp_path, texts):
    file = tmp_path / 'query.png'
    image.fromarray(picture(200, (40, 300))).save(file)
    matches = [[Match(picture(), True, '0.93'), Match(picture()[:, :, 0], False), Match(picture(), None)], []]
    plot_contact_sheet([Match(file), Match(str(file))], matches, tmp_path / 'sheet.pdf', note='scores')
    assert texts.count('✓') == 1
    assert texts.count('✗') == 1
    assert {'0.93', 'query', '#3', 'scores'} <= set(texts)
    assert (tmp_path / 'sheet.pdf').read_bytes().startswith(b'%PDF')


def test_training_curves_from_csv_and_from_rows_are_the_same(tmp_path, texts):
    log = tmp_path / 'log.csv'
    header = list(ROWS[0])
    log.write_text('\n'.join([','.join(header), *(','.join(str(row[name]) for name in header) for row in ROWS)]))
    a, b = plot_training(ROWS, tmp_path / 'a.png'), plot_training(log, tmp_path / 'b.png')
    assert a.read_bytes() == b.read_bytes()
    assert {'Loss', 'Conflict rate', 'mAP (%)', '0.25', '1.0', 'step'} <= set(texts)
    assert 'Mean uncertainty' not in texts


def test_long_curves_are_smoothed(tmp_path):
    rows = [{'loss': (-1) ** i} for i in range(300)]
    assert plot_training(rows, tmp_path / 'a.png').is_file()


def test_failed_drawing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = plot_training(ROWS, tmp_path / 'a.png')
    before = path.read_bytes()

    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        plot_training(ROWS[:3], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    'call, error, match',
    [
        (lambda p: plot_matrix(matrix_of(PAPER), p, k=3), ValueError, r'k must be one of the computed ranks \[1, 5\]'),
        (lambda p: plot_matrix(matrix_of(PAPER), p.with_suffix('.gif')), ValueError, 'path must end in .png or .pdf'),
        (lambda p: plot_matrix(matrix_of(PAPER), p / 'no' / 'a.png'), FileNotFoundError, 'folder .* does not exist'),
        (lambda p: plot_accuracy_cost(matrix_of(PAPER), p), ValueError, 'matrix.macs is None'),
        (lambda p: plot_training([], p), ValueError, 'rows is empty'),
        (lambda p: plot_training([{'step': 1, 'lr': 2}], p), ValueError, r"rows have no column.*\['step', 'lr'\]"),
        (lambda p: plot_training(p.parent / 'none.csv', p), FileNotFoundError, 'no training log at'),
        (lambda p: plot_contact_sheet([], [], p), ValueError, 'matches must hold one list for each query'),
        (lambda p: plot_contact_sheet([Match(picture())], [], p), ValueError, 'got 1 queries and 0 lists'),
        (lambda p: plot_contact_sheet([Match(picture() / 255)], [[]], p), ValueError, 'images must be uint8'),
        (lambda p: plot_contact_sheet([Match(p.parent / 'gone.jpg')], [[]], p), FileNotFoundError, 'no image at'),
    ],
)
def test_bad_input(tmp_path, call, error, match):
    with pytest.raises(error, match=match):
        call(tmp_path / 'plot.png')
    assert list(tmp_path.iterdir()) == []
