"""What a width is worth that was added after training: as it is, with statistics, with statistics and a fitted neck.

    python -m benchmarks.paper.added_widths glyphs-140/last.pth.tar --name glyphs-140
    python -m benchmarks.paper.added_widths emoji/last.pth.tar --data-dir emoji --name emoji
    python -m benchmarks.paper.added_widths --report  # only draws the tables of what is there

Each checkpoint is that of a run of `sfsc-timm train`, beside its args.yaml, which names the data. Statistics and necks
are fitted to its training images without their labels; queries and gallery are of other identities. The goal: an
untrained width between two trained ones reaches at least the narrower of them, in its own gallery and in that of the
full width. A measured checkpoint leaves one JSON under benchmarks/results/added_widths.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import save_json
from benchmarks.paper.runs import RESULTS
from sfsc_timm.checkpoints import Checkpoint, load_checkpoint_model
from sfsc_timm.checkpoints.refit import refit, save_refitted
from sfsc_timm.data import Batches, RetrievalData, Sample, batches, load_data, make_transforms
from sfsc_timm.evaluation import CompatibilityMatrix, Embedder, evaluate
from sfsc_timm.models import estimate_statistics
from sfsc_timm.training import read_config

WIDTHS = (0.3, 0.4, 0.6, 0.9)
KINDS = {'nothing': 'as it is', 'statistics': 'statistics', 'neck': 'statistics and neck'}

Figures = dict[str, dict[str, float]]  # of each width, by its name: `self` and `full`


def figures(matrix: CompatibilityMatrix, widths: Iterable[float]) -> Figures:
    """Accuracy, mAP in percent, of each width in its own gallery and in that of the full width."""
    places = {width: index for index, width in enumerate(matrix.widths)}
    full = places[1.0]
    return {
        f'{width:g}': {
            'self': float(matrix.mAP[places[width], places[width]]),
            'full': float(matrix.mAP[places[width], full]),
        }
        for width in widths
    }


class Bench:
    """A checkpoint with its data.

    Args:
        checkpoint: The trained model.
        data: The data set that it was trained on.
        limit: Training images to fit to, at most.
    """

    def __init__(self, checkpoint: Checkpoint, data: RetrievalData, limit: int) -> None:
        self.checkpoint, self.data = checkpoint, data
        self._transform = make_transforms(data, checkpoint.preprocessing)[1]
        self.query = self._serve(data.query)
        self.gallery = self.query if data.shared else self._serve(data.gallery)
        order = torch.randperm(len(data.training), generator=torch.Generator().manual_seed(0))[:limit]
        self.fitting = self._serve([data.training[i] for i in order.tolist()])

    def images(self) -> Iterator[Tensor]:
        """Training images, without their labels."""
        for batch in self.fitting:
            yield batch.images

    def measure(self, model: Any, widths: Sequence[float]) -> Figures:
        """Figures of some widths of a model."""
        both = sorted({*widths, 1.0})
        return figures(evaluate(Embedder(model, self.query, self.gallery, both), None, self.data), widths)

    def _serve(self, samples: Sequence[Sample]) -> Batches:
        return batches(samples, self._transform, batch_size=128, mode=self.checkpoint.preprocessing.image_mode)


def measure(bench: Bench, added: Sequence[float], say: Callable[[str], Any]) -> dict[str, Any]:
    """Figures of the trained widths, and of the added ones in each state."""
    model: Any = bench.checkpoint.model
    trained = model.widths
    found: dict[str, Any] = {'trained': bench.measure(model, trained)}
    say('trained')
    for width in added:
        model.add_width(width)
    found['nothing'] = bench.measure(model, added)
    say('nothing')
    estimate_statistics(model, bench.images(), added)
    found['statistics'] = bench.measure(model, added)
    say('statistics')
    fitted = [width for width in model.widths if width < 1]
    results = refit(model, bench.images(), fitted)
    with tempfile.TemporaryDirectory() as folder:
        save_refitted(model, results, folder, allow_plugin=True)
        dense = load_checkpoint_model(folder).model
        found['neck'] = bench.measure(dense, fitted)
    found['gains'] = {f'{result.width:g}': result.gains for result in results}
    found['agreement'] = {f'{result.width:g}': result.agreement for result in results}
    return found


def reaches(run: Mapping[str, Any], kind: str, width: str) -> bool:
    """Whether a width is as good as the next narrower trained one."""
    below = max((name for name in run['trained'] if float(name) < float(width)), key=float)
    goal, own = run['trained'][below], run[kind][width]
    return bool(all(own[key] >= goal[key] for key in goal))


def markdown(run: Mapping[str, Any]) -> str:
    """Own gallery / gallery of the full width, of all widths ascending; bold where the goal is reached."""
    lines = [f'**{run["name"]}**', '', f'| width | {" | ".join(KINDS.values())} |', '|-' * (len(KINDS) + 1) + '|']
    names = sorted({*run['trained'], *run['nothing']}, key=float)
    for name in names:
        cells = []
        for kind in KINDS:
            own = run[kind].get(name) or (run['trained'][name] if kind == 'nothing' else None)
            text = '-' if own is None else f'{own["self"]:.1f} / {own["full"]:.1f}'
            cells.append(f'**{text}**' if name in run['nothing'] and own and reaches(run, kind, name) else text)
        lines.append(f'| {name}{"" if name in run["nothing"] else ", trained"} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Measures a checkpoint, then draws the tables of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, nargs='?', help='of a training run')
    parser.add_argument('--data-dir', type=Path, help='where its data lies')
    parser.add_argument('--name', help='of the result (the name of the run)')
    parser.add_argument('--widths', type=float, nargs='+', default=list(WIDTHS), help='widths to add (%(default)s)')
    parser.add_argument('--limit', type=int, default=2000, help='training images to fit to (%(default)s)')
    parser.add_argument('--output', type=Path, default=RESULTS.parent / 'added_widths', help='where results go')
    parser.add_argument('--report', action='store_true', help='measure nothing')
    args = parser.parse_args()
    if not args.report:
        if args.checkpoint is None:
            parser.error('name a checkpoint, or give --report')
        config = read_config(args.checkpoint.with_name('args.yaml'))
        name = args.name or args.checkpoint.parent.name
        bench = Bench(
            load_checkpoint_model(args.checkpoint),
            load_data(config['data'], args.data_dir, **config['data_kwargs']),
            args.limit,
        )
        found = measure(bench, args.widths, lambda text: print(f'{name}: {text}', flush=True))
        settings = {
            key: config[key] for key in ('data', 'data_kwargs', 'model', 'model_kwargs', 'recipe', 'recipe_kwargs')
        }
        settings |= {key: config[key] for key in ('epochs', 'seed')}
        save_json(
            args.output / f'{name}.json',
            {'name': name, 'settings': settings, 'fitted_to': len(bench.fitting.samples), **found},
        )
    for file in sorted(args.output.glob('*.json')):
        print(markdown(json.loads(file.read_text())))


if __name__ == '__main__':
    main()
