"""What each width costs on this machine, in every form in which it can run."""

from .forms import FORMS, build_forms
from .measure import Timing, bench_table, measure_width
from .plot import plot_accuracy_latency

__all__ = ['FORMS', 'Timing', 'bench_table', 'build_forms', 'measure_width', 'plot_accuracy_latency']
