"""The whole story in a few minutes on a CPU, with nothing to download.

Trains a small slimmable ResNet by SFSC, the full width alone first and then all four widths, on glyphs, a retrieval
benchmark drawn from the fonts inside matplotlib (or on your own images, one folder per identity). Prints and plots the
matrix M(query width, gallery width), saves each width as a folder that plain timm loads, and proves it: a fresh process
without this package embeds queries with the smallest width and searches a gallery that the full width embedded.

  sfsc-timm quickstart --output quickstart
  sfsc-timm quickstart --output mine --data folder --data-dir photos --img-size 64

Writes matrix.json, matrix.png, training.csv, training.png, accuracy-cost.png, matches.png and w0.25/ ... w1/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._device import use_threads
from .._files import scratch_folder, write_csv, write_json
from ._terminal import console, matrix_table, progress_bar

if TYPE_CHECKING:
    from ..data import Preprocessing, RetrievalData
    from ..evaluation import CompatibilityMatrix
    from ..models import Slimmable
    from ..training import Fit

_CHANNELS = (32, 64, 128, 256)
_MEAN, _STD = 0.5, 0.25
_PLAIN_QUERY = Path(__file__).with_name('_plain_query.py')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        '--output', metavar='DIR', type=Path, default=Path('quickstart'), help='folder for results (%(default)s)'
    )
    parser.add_argument(
        '--data', choices=('glyphs', 'folder'), default='glyphs', help='images to learn from (%(default)s)'
    )
    parser.add_argument(
        '--data-dir', type=Path, metavar='DIR', help='for --data folder: one folder of images per identity'
    )
    parser.add_argument(
        '--epochs',
        metavar='N',
        type=int,
        default=3,
        help='passes over the training images, for the full width alone and for all again (%(default)s)',
    )
    parser.add_argument('--batch-size', '-b', metavar='N', type=int, default=128, help='images per step (%(default)s)')
    parser.add_argument('--lr', metavar='X', type=float, default=0.2, help='peak learning rate (%(default)s)')
    parser.add_argument(
        '--img-size', metavar='N', type=int, default=32, help='side of the images in pixels (%(default)s)'
    )
    parser.add_argument(
        '--identities', metavar='N', type=int, default=600, help='training identities of glyphs (%(default)s)'
    )
    parser.add_argument(
        '--seed', metavar='N', type=int, default=0, help='seed of data, weights and training (%(default)s)'
    )
    parser.add_argument(
        '--threads', metavar='N', type=int, default=0, help='CPU threads, 0 for all cores (%(default)s)'
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ..checkpoints import save_widths
    from ..evaluation import plot_accuracy_cost, plot_matrix, plot_training
    from ..evaluation.tables import update_gain

    terminal = console()
    start = time.perf_counter()
    _check(args)
    config = _config(args)
    use_threads(args.threads)
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    data = _load(args)
    terminal.print(data.summary(), '', sep='\n')
    size = (1 if args.data == 'glyphs' else 3, args.img_size, args.img_size)
    model = _create_model(data, size[0])
    rows = _train(terminal, model, _create_model(data, size[0], widths=(1.0,)), data, size, config, args)
    write_csv(args.output / 'training.csv', rows)
    matrix = _evaluate(model, data, size, args)
    terminal.print(matrix_table(matrix))
    terminal.print(
        f'diagonal mean {matrix.diagonal_mean:.1f} mAP, cross mean {matrix.cross_mean:.1f} mAP; '
        f'{matrix.num_compatible} of {len(matrix.widths) * (len(matrix.widths) - 1)} cross-tests beat the smaller '
        f"model's self-test; update gain {update_gain(matrix)}\n"
    )
    write_json(args.output / 'matrix.json', matrix.to_dict())
    plot_matrix(matrix, args.output / 'matrix.png')
    plot_accuracy_cost(matrix, args.output / 'accuracy-cost.png')
    plot_training(rows, args.output / 'training.png', title=f'SFSC on {data.name}')
    folders = save_widths(model, args.output, data_config=_preprocessing(size).to_dict())
    narrowest = model.widths[0]
    terminal.print(
        f'A fresh process without sfsc_timm loads {folders[narrowest]} and searches the gallery of width 1.0'
    )
    rank1 = _prove(model, data, folders[narrowest], size, args)
    place = model.widths.index(narrowest), len(model.widths) - 1
    terminal.print(f'rank-1 {rank1:.1f} there, {matrix.cmc[1][place]:.1f} in the matrix above\n')
    terminal.print(
        f'{args.output}: matrix.json, pictures and one folder per width, {time.perf_counter() - start:.0f} s'
    )


def _check(args: argparse.Namespace) -> None:
    """Refuses settings out of their range; those of the optimisation know theirs."""
    for name, low, high in (
        ('batch_size', 2, 1_000_000),
        ('img_size', 16, 512),
        ('identities', 2, 1_000_000),
        ('seed', 0, 2**32 - 1),
    ):
        if not low <= getattr(args, name) <= high:
            flag = name.replace('_', '-')
            raise ValueError(f'--{flag} must be whole, from {low} to {high}, got {getattr(args, name)}.')
    if args.data == 'folder' and args.data_dir is None:
        raise ValueError('--data folder needs --data-dir: a folder with one folder of images per identity')
    if args.data == 'glyphs' and args.data_dir is not None:
        raise ValueError('--data-dir is for --data folder; add that, or leave it out: glyphs are drawn')


def _config(args: argparse.Namespace) -> Fit:
    from ..training import Fit

    return Fit(epochs=args.epochs, lr=args.lr, warmup_lr=args.lr / 100, warmup_epochs=max(0, min(1, args.epochs - 1)))


def _load(args: argparse.Namespace) -> RetrievalData:
    from ..data import load_data

    if args.data == 'glyphs':
        return load_data(
            'glyphs',
            size=args.img_size,
            seed=args.seed,
            train_identities=args.identities,
            test_identities=max(2, args.identities // 2),
        )
    data = load_data('folder', args.data_dir)
    data.require_training()
    return data


def _create_model(data: RetrievalData, in_chans: int, **options: Any) -> Slimmable:
    import timm

    model: Slimmable = timm.create_model(
        'sfsc_resnet18d',
        num_classes=data.num_classes,
        in_chans=in_chans,
        channels=_CHANNELS,
        stem_width=_CHANNELS[0] // 2,
        embed_dim=128,
        classifier_type='cosine',
        **options,
    )
    return model


def _transforms(data: RetrievalData, size: tuple[int, int, int]) -> tuple[Any, Any]:
    from ..data import make_transforms

    return make_transforms(data, _preprocessing(size).suited(data))


def _preprocessing(size: tuple[int, int, int]) -> Preprocessing:
    from ..data import Preprocessing

    return Preprocessing(size, (_MEAN,) * size[0], (_STD,) * size[0])


def _train(
    terminal: Any,
    model: Slimmable,
    teacher: Slimmable,
    data: RetrievalData,
    size: tuple[int, int, int],
    config: Fit,
    args: argparse.Namespace,
) -> list[dict[str, float]]:
    """Trains the full width alone, then all widths from it; returns one row of figures per epoch of the latter."""
    from ..data import ShuffleSampler, batches
    from ..recipes import create_recipe
    from ..training import fit, start_from_teacher

    sampler = ShuffleSampler(len(data.training), args.batch_size, args.seed)
    train = batches(data.training, _transforms(data, size)[0], sampler=sampler, seed=args.seed)
    recipe = create_recipe('sfsc')
    with progress_bar(terminal) as bar:

        def trained(task: Any, title: str, rate: float) -> list[dict[str, float]]:
            line = bar.add_task(title, total=len(train) * config.epochs)
            fitting = replace(config, lr=config.lr * rate)
            return list(fit(task, train, fitting, on_step=lambda loop: bar.update(line, completed=loop.updates)))

        for network in (teacher, model):
            network.to(memory_format=torch.channels_last)  # the faster layout for small images on a CPU
        trained(recipe.create_task(teacher, seed=args.seed, verbose=False), 'the full width alone', 1.0)
        start_from_teacher(model, teacher, train)
        task = recipe.create_task(model, reference=teacher, seed=args.seed)
        rows = trained(task, f'SFSC, widths {", ".join(f"{w:g}" for w in model.widths)}', recipe.joint_rate(config.opt))
    model.to(memory_format=torch.contiguous_format)  # as it is saved
    return rows


def _evaluate(
    model: Slimmable, data: RetrievalData, size: tuple[int, int, int], args: argparse.Namespace
) -> CompatibilityMatrix:
    """Every query width against every gallery width."""
    from ..data import batches
    from ..evaluation import Embedder, evaluate

    transform = _transforms(data, size)[1]
    sides = batches(data.query, transform), batches(data.gallery, transform)
    matrix = evaluate(Embedder(model, *sides, input_size=size), None, data)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    settings.pop('run', None)
    matrix.info.update(settings=settings)
    return matrix


def _prove(
    model: Slimmable,
    data: RetrievalData,
    folder: Path,
    size: tuple[int, int, int],
    args: argparse.Namespace,
    rows: int = 8,
    k: int = 10,
) -> float:
    """Searches the gallery, embedded at width 1.0, for queries that plain timm embeds in another process.

    Args:
        model: Embeds the gallery.
        data: The benchmark.
        folder: The sub-model that embeds the queries.
        size: (C, H, W) of an image.
        args: The command's.
        rows: How many queries are drawn with their matches.
        k: How many matches of each.

    Returns:
        Rank-1 in percent.
    """
    from ..data import batches
    from ..evaluation import GroundTruth, Match, embed, plot_contact_sheet, retrieval_metrics
    from ..retrieval import search

    transform = _transforms(data, size)[1]
    gallery = embed(model, batches(data.gallery, transform), [1.0])[1.0]
    images = torch.cat([batch.images for batch in batches(data.query, transform)])
    with scratch_folder('quickstart') as scratch:
        source, target = scratch / 'queries.npy', scratch / 'embeddings.npy'
        np.save(source, images.numpy())
        command = [sys.executable, str(_PLAIN_QUERY), str(folder.resolve()), str(source), str(target)]
        subprocess.run([*command, str(torch.get_num_threads())], check=True)  # noqa: S603  our own script
        queries = torch.from_numpy(np.load(target))
    truth = GroundTruth.of(data)
    scores, items = search(queries, gallery, k, truth=truth)
    shown = np.random.default_rng(args.seed).choice(len(data.query), min(rows, len(data.query)), replace=False)
    plot_contact_sheet(
        [Match(data.query[i].image) for i in shown],
        [
            [
                Match(data.gallery[j].image, data.gallery[j].identity == data.query[i].identity, f'{score:.2f}')
                for j, score in zip(items[i].tolist(), scores[i].tolist(), strict=True)
            ]
            for i in shown
        ],
        args.output / 'matches.png',
        title='Small queries, big gallery',
        note='queries: smallest width, by plain timm; gallery: width 1.0'
        + ("; the query's own camera is left out" if data.cameras else ''),
    )
    return float(retrieval_metrics(queries, gallery, truth).cmc[1])
