"""What `sfsc-timm refit` gains on images that were not fitted, of identities that were.

    python -m benchmarks.paper.refitted glyphs-140/last.pth.tar --name glyphs-140
    python -m benchmarks.paper.refitted grocery/last.pth.tar --data-dir grocery --name grocery

The checkpoint is that of a run of `sfsc-timm train`, beside its args.yaml, which names the data. The images of every
test identity, which training has not seen, are halved: necks are fitted to one half without its labels, as to a gallery
of the user's own, and the matrix of the other half, each image a query among all others of it, is taken before and
after: with the necks that `refit` keeps, and with all of them. A result is one JSON under benchmarks/results/refitted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.machine import save_json
from benchmarks.paper.runs import RESULTS
from sfsc_timm.checkpoints import load_checkpoint_model
from sfsc_timm.checkpoints.refit import Refit, refit, save_refitted
from sfsc_timm.data import RetrievalData, Sample, batches, load_data, make_transforms
from sfsc_timm.evaluation import CompatibilityMatrix, Embedder, evaluate
from sfsc_timm.training import read_config


def halved(data: RetrievalData) -> tuple[list[Sample], RetrievalData]:
    """The images to fit to, and a benchmark of the others: of each test identity's images, every second one."""
    of_identity = defaultdict(list)
    for sample in data.query if data.shared else [*data.query, *data.gallery]:
        of_identity[sample.identity].append(sample)
    fitted = [sample for samples in of_identity.values() for sample in samples[::2]]
    tested = [sample for samples in of_identity.values() for sample in samples[1::2]]
    return fitted, RetrievalData(f'{data.name}, half', [], tested, tested, cameras=False, shared=True)


def refitted(model: Any, results: Sequence[Refit]) -> Any:
    """The widths with the necks that gain."""
    with tempfile.TemporaryDirectory() as folder:
        save_refitted(model, results, folder, allow_plugin=True)
        return load_checkpoint_model(folder).model


def main() -> None:
    """Measures a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='of a training run')
    parser.add_argument('--data-dir', type=Path, help='where its data lies')
    parser.add_argument('--name', help='of the result (the name of the run)')
    parser.add_argument('--output', type=Path, default=RESULTS.parent / 'refitted', help='where results go')
    args = parser.parse_args()
    config = read_config(args.checkpoint.with_name('args.yaml'))
    checkpoint = load_checkpoint_model(args.checkpoint)
    fitted, data = halved(load_data(config['data'], args.data_dir, **config['data_kwargs']))
    preprocessing = checkpoint.preprocessing
    transform = make_transforms(data, preprocessing)[1]
    served: Any = [
        batches(part, transform, batch_size=128, mode=preprocessing.image_mode) for part in (fitted, data.query)
    ]

    def images() -> Iterator[Tensor]:
        for batch in served[0]:
            yield batch.images

    def measure(model: Any) -> CompatibilityMatrix:
        matrix = evaluate(Embedder(model, served[1], served[1]), None, data)
        print(matrix.mAP.round(1).tolist(), f'cross {matrix.cross_mean:.2f}', flush=True)
        return matrix

    model: Any = checkpoint.model
    before = measure(model)
    results = refit(model, images())
    after, ungated = (
        measure(refitted(model, found))
        for found in (results, [replace(one, agreement=(0.0, 1.0), neighbours=(0.0, 1.0)) for one in results])
    )
    found = {
        'name': args.name or args.checkpoint.parent.name,
        'images': {'fitted': len(fitted), 'tested': len(data.query)},
        'widths': {
            f'{result.width:g}': {'gains': result.gains, 'agreement': result.agreement, 'neighbours': result.neighbours}
            for result in results
        },
        'cross': {'before': before.cross_mean, 'after': after.cross_mean, 'whatever it gains': ungated.cross_mean},
        'before': before.to_dict(),
        'after': after.to_dict(),
        'whatever it gains': ungated.to_dict(),
    }
    save_json(args.output / f'{found["name"]}.json', found)


if __name__ == '__main__':
    main()
