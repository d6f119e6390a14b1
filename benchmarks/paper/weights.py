r"""The weights that ship: trains them on every identity of `emoji`, and their twins on half, for honest figures.

    python -m benchmarks.paper.weights --model sfsc_resnet18d --data-dir emoji --half
    python -m benchmarks.paper.weights --model sfsc_resnet18d --data-dir emoji --ship

The first trains on the training identities and leaves the matrix on the test identities under
benchmarks/results/weights. The second trains on all of them, which leaves nothing to test on, and puts the checkpoint,
with the twin's figures on its card, into weights/. Both go on where they were cut. There are two stages, 32 px at high
rates and then 64 px at low ones, for the sake of time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.machine import describe_machine, save_json
from benchmarks.paper.runs import CONFIGS, RESULTS, read_run, train_or_resume
from sfsc_timm._files import write_json
from sfsc_timm.hub import About, ship

CONFIG = CONFIGS / 'weights' / 'both-stages.yaml'
TAG = 'sfsc_emoji'
BOTH = {  # flags of both stages
    'sfsc_resnet18d': '--opt sgd --weight-decay 2e-3',
    # AdamW, because a ResNet-50 without a warm start learns slowly by SGD: after five epochs its losses were 8.6 to 8.9
    # instead of 7.6 to 8.0.
    'sfsc_resnet50': '--opt adamw --weight-decay 0.05',
}
# By the side of the images. The epochs in which all widths draw the same images belong at the end of it all.
FIRST, LAST = '--warmup-epochs 5 --recipe-kwargs teacher=0 own_batches=True', '--warmup-epochs 0'
STAGES = {
    'sfsc_resnet18d': {32: f'{FIRST} --lr 0.2 --min-lr 0.04', 64: LAST},
    'sfsc_resnet50': {32: f'{FIRST} --lr 1e-3 --min-lr 3e-4 --warmup-lr 1e-5', 64: LAST},
}
SCHEDULE = {  # further flags of each stage, on half of the identities and on all
    ('sfsc_resnet18d', 'half'): ('--epochs 20', '--epochs 6 --lr 0.08'),
    ('sfsc_resnet18d', 'all'): ('--epochs 14', '--epochs 4 --lr 0.08'),
    ('sfsc_resnet50', 'half'): ('--epochs 20', '--epochs 5 --lr 4e-4'),
    ('sfsc_resnet50', 'all'): ('--epochs 12', '--epochs 4 --lr 4e-4'),
}


def train(model: str, part: str, args: argparse.Namespace) -> Path:
    """Trains both stages, as far as that is not done, and returns the folder of the second."""
    folder, start = Path(), []
    for (side, flags), more in zip(STAGES[model].items(), SCHEDULE[model, part], strict=True):
        folder = args.work_dir / f'{model}-{part}-{side}'
        common = ['--config', str(CONFIG), '--model', model, '--img-size', str(side), *BOTH[model].split()]
        data = ['--data-dir', str(args.data_dir), '--data-kwargs', f'everything={part == "all"}']
        train_or_resume(folder, [*common, *data, *flags.split(), *more.split(), *start, *args.settings])
        start = ['--initial-checkpoint', str(folder / 'last.pth.tar')]
    return folder


def main() -> None:
    """Trains one architecture on half of the identities or on all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, choices=sorted(STAGES), help='architecture')
    parser.add_argument('--data-dir', required=True, type=Path, help='where `sfsc-timm data emoji --build` put it')
    parser.add_argument('--half', action='store_true', help='train on half of the identities, and test on the others')
    parser.add_argument('--ship', action='store_true', help='put what was trained on all of them into weights/')
    parser.add_argument('--work-dir', type=Path, default=Path('output/weights'), help='where runs go')
    parser.add_argument('--results', type=Path, default=RESULTS.parent / 'weights', help='where figures go')
    parser.add_argument('settings', nargs=argparse.REMAINDER, help='after --: flags of sfsc-timm train for every stage')
    args = parser.parse_args()
    args.settings = [flag for flag in args.settings if flag != '--']
    if args.half and args.ship:
        parser.error('--half trains a twin for its figures; what ships is trained on every identity')
    print(describe_machine())
    part = 'half' if args.half else 'all'
    folder = train(args.model, part, args)
    args.results.mkdir(parents=True, exist_ok=True)
    if args.half:
        save_json(args.results / f'{args.model}.json', {'model': args.model, **read_run(folder)})
    if args.ship:
        ship_with_figures(args.model, folder, args.results / f'{args.model}.json')


def ship_with_figures(model: str, folder: Path, result: Path) -> None:
    """Puts a checkpoint into weights/, its twin's matrix on the card."""
    if not result.is_file():
        raise SystemExit(f'{result} is missing: train the twin first, with --half.')
    matrix = folder / 'twin.json'
    write_json(matrix, json.loads(result.read_text())['matrix'])
    about = About(
        license='apache-2.0',
        command=f'python -m benchmarks.paper.weights --model {model} --data-dir emoji --ship',
        note='Trained on every emoji of the data set, this checkpoint has none left to be tested on. These are the '
        'figures of its twin, trained by the same two stages on half of them, on the other half.',
        use='Trying out cross-width search without downloading anything, and a start for drawings, icons and symbols. '
        'For photographs start from the ImageNet weights.',
    )
    print(ship(folder / 'last.pth.tar', TAG, about=about, matrix=matrix))


if __name__ == '__main__':
    main()
