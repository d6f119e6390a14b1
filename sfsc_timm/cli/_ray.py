"""`index --engine ray`: the processes of a Ray cluster read and embed images, and this one writes what they make.

A row of the data set is a batch of paths, the same batches as without Ray. On a cluster with GPUs tasks on its cores
make pixels, which an actor on each GPU embeds meanwhile; without GPUs an actor on each core does both, and no pixels
travel. What comes back is paths, embeddings, what the files were like, and why others could not be read.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._device import find_device
from ..checkpoints.dense import DenseWidths
from ..data import ImageReadError, Preprocessing, load_image
from ..evaluation import embed
from ..retrieval import FileState, GalleryInfo, state_since, times_of
from ._options import track, whole_number
from ._parts import Part

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint

__all__ = ['add_engine_arguments', 'embed_by_ray', 'use_ray']

_SHARES = 4  # that each worker gets at least, so that none waits long for another


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know."""

    model: DenseWidths
    preprocessing: Preprocessing
    width: float
    size: int
    flip: bool
    device: str


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says which processes embed."""
    group = parser.add_argument_group('engine')
    group.add_argument(
        '--engine', choices=('here', 'ray'), default='here',
        help='who embeds: this process, or those of a Ray cluster (%(default)s)',
    )  # fmt: skip
    group.add_argument('--address', metavar='HOST:PORT', help='the Ray cluster (RAY_ADDRESS, or this machine alone)')
    group.add_argument(
        '--actors', type=whole_number(1), metavar='N', help='processes that embed by Ray (one of each GPU, else core)'
    )


def use_ray(args: argparse.Namespace) -> None:
    """Checks the arguments of the engine, and fills in those that depend on it.

    Raises:
        ValueError: There are some that the engine does not take.
        ImportError: Ray is not installed.
    """
    if args.on_error is None:
        args.on_error = 'skip' if args.engine == 'ray' else 'raise'
    if args.engine != 'ray':
        for flag, value in (('--address', args.address), ('--actors', args.actors)):
            if value is not None:
                raise ValueError(f'{flag} is of --engine ray, got --engine {args.engine}; leave it out, or say ray')
        return
    if args.device not in {None, 'cpu', 'cuda'}:
        raise ValueError(f'--device must be cpu or cuda with --engine ray, got {args.device!r}; Ray chooses which')
    args.actor_device, args.device = args.device, 'cpu'  # of this process, which embeds nothing but a blank image
    _ray()


def embed_by_ray(
    paths: Sequence[str], checkpoint: Checkpoint, info: GalleryInfo, args: argparse.Namespace
) -> Iterator[Part]:
    """Embeds images by the processes of a cluster; parts come in the order in which they are done.

    Raises:
        ImageReadError: An image is unreadable, and that is to stop the run.
        ValueError: A GPU is asked for, and the cluster has none.
    """
    with _cluster(args.address) as ray:
        dataset = _dataset(ray, paths, checkpoint, info, args)
        tables = dataset.iter_batches(batch_size=args.shard_size, batch_format='pyarrow')
        for table in _counted(tables, len(paths)):
            part = _part(table, info)
            if part.unreadable and args.on_error == 'raise':
                raise ImageReadError(next(iter(part.unreadable.values())))
            yield part


def _dataset(
    ray: Any, paths: Sequence[str], checkpoint: Checkpoint, info: GalleryInfo, args: argparse.Namespace
) -> Any:
    """The data set of what becomes of the images, not begun."""
    resources = ray.cluster_resources()
    gpus, cores = (int(resources.get(name, 0)) for name in ('GPU', 'CPU'))
    if args.actor_device == 'cuda' and not gpus:
        raise ValueError('--device must be cpu on this Ray cluster, got cuda; none of its machines has a GPU')
    on_gpu = gpus > 0 and args.actor_device != 'cpu'
    apart = on_gpu if args.workers is None else args.workers > 0
    most = gpus if on_gpu else max(1, cores - 1) if apart else cores  # a core is left to read
    actors = min(args.actors or most, most, len(paths))
    dense = DenseWidths({info.width: checkpoint.model.extract(info.width)}).cpu()
    device = 'cuda' if on_gpu else 'cpu'
    job = _Job(dense, checkpoint.preprocessing, info.width, info.embed_dim, args.flip, device)
    rows = [
        {'paths': [os.fsencode(path) for path in paths[begin : begin + args.batch_size]]}
        for begin in range(0, len(paths), args.batch_size)
    ]
    shares = max(-(-len(paths) // args.shard_size), min(len(rows), _SHARES * actors))
    dataset = ray.data.from_items(rows, override_num_blocks=shares)
    how: dict[str, Any] = {'batch_size': 1, 'batch_format': 'pyarrow'}
    if apart:
        readers = ray.data.TaskPoolStrategy(args.workers)
        dataset = dataset.map_batches(_read, fn_args=(job.preprocessing,), compute=readers, **how)
    return dataset.map_batches(
        _Embedder,
        fn_constructor_args=(ray.put(job),),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=0 if on_gpu else 1,
        num_gpus=1 if on_gpu else 0,
        **how,
    )


class _Embedder:
    """Embeds batches of paths, or of pixels, in a process of its own."""

    def __init__(self, reference: Any) -> None:
        self.job: _Job = _ray().get(reference)
        self.device = find_device(self.job.device)
        self.job.model.to(self.device)

    def __call__(self, table: Any) -> Any:
        """A table of batches to one of images."""
        import pyarrow as pa

        if 'pixels' not in table.column_names:
            table = _read(table, self.job.preprocessing)
        return pa.concat_tables([self._embedded(row) for row in table.to_pylist()])

    def _embedded(self, row: dict[str, Any]) -> Any:
        import pyarrow as pa

        job, count = self.job, len(row['paths'])
        values = torch.zeros(count + len(row['unreadable']), job.size)
        if count:
            pixels = torch.frombuffer(bytearray(row['pixels']), dtype=torch.uint8)
            images = _normalised(pixels.view(count, *job.preprocessing.input_size), job.preprocessing)
            found = embed(job.model, [images], [job.width], device=self.device, flip=job.flip)
            values[:count] = found[job.width][:, : job.size]
        nothing = [None] * len(row['unreadable'])
        columns = [
            [*row['paths'], *row['unreadable']],
            pa.FixedSizeListArray.from_arrays(pa.array(values.flatten().numpy()), job.size),
            [*row['states'], *nothing],
            [*([None] * count), *row['reasons']],
        ]
        return pa.table(columns, schema=_schema(job.size))


def _read(table: Any, preprocessing: Preprocessing) -> Any:
    """Batches of paths to batches of pixels: what the transform makes before it scales and normalises."""
    import pyarrow as pa
    from timm.data.transforms_factory import create_transform

    transform: Any = create_transform(**asdict(preprocessing), normalize=False)
    rows = []
    for row in table.to_pylist():
        done: dict[str, Any] = {name: [] for name in ('paths', 'states', 'unreadable', 'reasons')}
        pixels: list[torch.Tensor] = []
        for name in row['paths']:
            path = os.fsdecode(name)
            before = times_of([path]).get(path)
            try:
                pixels.append(transform(load_image(Path(path), preprocessing.image_mode)))
            except ImageReadError as error:
                done['unreadable'].append(name)
                done['reasons'].append(str(error))
                continue
            state = state_since(path, before)
            done['paths'].append(name)
            done['states'].append(None if state is None else state._asdict())
        rows.append({**done, 'pixels': torch.stack(pixels).numpy().tobytes() if pixels else b''})
    names, texts = pa.list_(pa.binary()), pa.list_(pa.string())
    kinds = (names, pa.list_(_state()), names, texts, pa.large_binary())
    schema = pa.schema(list(zip(('paths', 'states', 'unreadable', 'reasons', 'pixels'), kinds, strict=True)))
    return pa.Table.from_pylist(rows, schema=schema)


def _normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Pixels as the transform of one process makes them, to the last bit."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return pixels.float().div(255).sub_(mean).div_(std)


def _part(table: Any, info: GalleryInfo) -> Part:
    """Some rows of the result."""
    reasons = table['reason'].to_pylist()
    names = [os.fsdecode(name) for name in table['path'].to_pylist()]
    values = table['embedding'].combine_chunks().flatten().to_numpy()
    read = [i for i, reason in enumerate(reasons) if reason is None]
    states = table['state'].to_pylist()
    return Part(
        [names[i] for i in read],
        torch.from_numpy(values.copy()).view(-1, info.embed_dim)[read],
        [None if states[i] is None else FileState(**states[i]) for i in read],
        {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None},
    )


def _schema(size: int) -> Any:
    import pyarrow as pa

    kinds = {'path': pa.binary(), 'embedding': pa.list_(pa.float32(), size), 'state': _state(), 'reason': pa.string()}
    return pa.schema(list(kinds.items()))


def _state() -> Any:
    import pyarrow as pa

    return pa.struct([('size', pa.int64()), ('mtime_ns', pa.int64()), ('sha256', pa.string())])


def _counted(tables: Any, total: int) -> Iterator[Any]:
    """Passes tables on, counting their rows on the progress bar."""
    bar = track(range(total), total, 'embedding')
    for table in tables:
        for _ in range(len(table)):
            next(bar, None)
        yield table
    next(bar, None)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, joined or started for the length of a `with` block, unless this process has done so already."""
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger('ray.data').setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level='error', include_dashboard=False)
    except (ConnectionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [''])[0]
        raise ConnectionError(f'--address must be of a Ray cluster, got {address!r}: {reason}') from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # of itself it reports to its makers
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("--engine ray needs Ray Data: pip install 'sfsc-timm[ray]'") from error
    return ray
