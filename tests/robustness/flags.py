"""Flags of the commands that take a checkpoint: wrong, out of range, or of no use there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .case import Case
from .materials import DEVICE, Materials

# Flags with what the refusal names. `search` may also go on if the matches stay the same.
IMAGES: tuple[tuple[list[str], str], ...] = (
    (['--img-size', '64'], 'input.size|img.size'),
    (['--img-size', '0'], 'img.size|input.size'),
    (['--img-size', 'x'], 'img.size|input.size'),
    (['--img-size', '-3'], 'img.size|input.size'),
    (['--img-size', '1000000'], 'img.size|input.size'),
    (['--input-size', '3', '0', '5'], 'input.size'),
    (['--input-size', '3'], 'input-size'),
    (['--input-size', '1', '32', '32'], 'input.size|channels'),
    (['--mean', '-3'], 'mean'),
    (['--mean', '127', '127', '127'], 'mean'),
    (['--mean', 'nan'], 'mean'),
    (['--mean', '0.1', '0.2'], 'mean'),
    (['--mean', 'x'], 'mean'),
    (['--std', '0'], 'std'),
    (['--std', '-1'], 'std'),
    (['--std', '1', '2', '3', '4'], 'std'),
    (['--std', 'inf'], 'std'),
    (['--interpolation', 'cubic'], 'interpolation'),
    (['--crop-pct', '0.5'], 'crop.pct'),
    (['--crop-pct', '0'], 'crop.pct'),
    (['--crop-pct', '-1'], 'crop.pct'),
    (['--crop-pct', 'nan'], 'crop.pct'),
    (['--crop-pct', '99'], 'crop.pct'),
    (['--crop-mode', 'nonsense'], 'crop.mode'),
    (['--crop-mode', 'squash'], 'crop.mode'),
    (['--flip'], 'flip'),
)
RUNNING: tuple[tuple[list[str], str], ...] = (
    (['-b', '0'], 'batch.size'),
    (['-b', '-1'], 'batch.size'),
    (['-b', 'x'], 'batch.size'),
    (['-j', '-1'], 'workers'),
    (['-j', '100000000'], 'workers'),
    (['--device', 'meta'], 'meta'),
    (['--device', 'abacus'], 'abacus'),
    (['--device', 'cuda:99'], 'cuda:99'),
    (['--device', ''], 'device'),
    (['--width', '0.3'], 'width'),
    (['--width', 'nan'], 'width'),
    (['--width', '-1'], 'width'),
    (['--width', 'x'], 'width'),
    (['--width', 'inf'], 'width'),
    (['--use-ema'], 'use-ema'),
    (['--model', 'resnet18'], 'model'),
    (['--model', 'no_such_net'], 'model'),
    (['--model-kwargs', 'embed_dim=3'], 'model-kwargs'),
    (['--model-kwargs', 'x'], 'model-kwargs'),
    (['--no-such-flag'], 'no-such-flag'),
)


def _named(argv: list[str]) -> str:
    """A command line without the folders of this run."""
    return ' '.join(word for word in argv if not Path(word).is_absolute() or word.startswith(('/nope', '/dev')))


def search(materials: Materials) -> Iterator[Case]:
    """Flags of `search`."""
    more = (
        (['-k', '0'], '-k'),
        (['-k', '-5'], '-k'),
        (['-k', 'x'], '-k'),
        (['--distance', 'manhattan'], 'distance'),
        (['--contact-sheet', 'sheet.mp3'], 'sheet|mp3|contact'),
        (['--contact-sheet', '/nope/sheet.png'], '/nope'),
        (['--on-error', 'ignore'], 'on-error'),
    )
    for argv, needle in (*IMAGES, *RUNNING, *more):
        yield Case(
            'flags: search',
            _named(argv),
            lambda _, a=argv: materials.search(None, None, *a),
            needle,
            lambda: materials.found,
        )
    for gallery, needle in (
        ('/nope', '/nope'),
        (str(materials.images), 'photos'),
        (str(materials.query), r'\.png'),
        ('', 'gallery'),
    ):
        places = [gallery, str(materials.query), '--checkpoint', str(materials.narrow), *DEVICE]
        yield Case('flags: search', f'gallery {Path(gallery).name!r}', lambda _, p=places: ['search', *p], needle)


def index(materials: Materials) -> Iterator[Case]:
    """Flags of `index`, and galleries that hold something else."""
    more = (
        (['--dim', '5'], 'dim'),
        (['--dim', '0'], 'dim'),
        (['--dtype', 'int4'], 'dtype'),
        (['--shard-size', '0'], 'shard-size'),
        (['--shard-size', '-7'], 'shard-size'),
        (['--shard-size', 'x'], 'shard-size'),
        (['--data-kwargs', 'a=1'], 'data-kwargs|data'),
        (['--data-dir', '/nope'], 'data'),
        (['--data', 'glyphs'], 'FOLDER|data'),
        (['--data', 'nope'], 'FOLDER|data'),
    )
    legal = {'--img-size 64', '--crop-pct 0.5', '--crop-mode squash', '--flip'}  # of a new gallery
    base = ['index', str(materials.images), '--checkpoint', str(materials.widths), *DEVICE]
    for argv, needle in (*IMAGES, *RUNNING, *more):
        if _named(argv) not in legal:
            yield Case('flags: index', _named(argv), lambda f, a=argv: [*base, '--output', str(f / 'new'), *a], needle)

    def grown(folder: Path, argv: list[str]) -> list[str]:
        return [*base, '--output', str(materials.copy(materials.gallery, folder)), *argv]

    for argv in (
        ['--img-size', '64'],
        ['--crop-pct', '0.5'],
        ['--crop-mode', 'squash'],
        ['--flip'],
        ['--mean', '0.1'],
        ['--width', '0.5'],
        ['--dtype', 'float16'],
    ):
        yield Case('flags: index', f'into a gallery, {_named(argv)}', lambda f, a=argv: grown(f, a), r'gallery')
    for folder in ('/nope', '', '/dev/null'):
        yield Case(
            'flags: index',
            f'folder {folder!r}',
            lambda f, d=folder: ['index', d, *base[2:], '--output', str(f / 'new')],
            'nope|null|FOLDER|No images',
        )

    def occupied(folder: Path) -> list[str]:
        (folder / 'new').write_text('')
        return [*base, '--output', str(folder / 'new')]

    yield Case('flags: index', 'into a file', occupied, 'new')


def evaluate(materials: Materials) -> Iterator[Case]:
    """Flags of `eval`."""
    data = ['--data', 'folder', '--data-dir', str(materials.images), '--data-kwargs', 'train_share=0']
    base = ['eval', '--checkpoint', str(materials.widths), *DEVICE]
    wrong: tuple[tuple[list[str], str], ...] = (
        ([*data, '--widths', '0.3'], '0.3'),
        ([*data, '--widths', 'x'], 'widths'),
        ([*data, '--widths', 'nan'], 'nan'),
        ([*data, '--dims'], 'dims'),
        ([*data, '--dims', '5'], 'dims'),
        ([*data, '--dims', 'x'], 'dims'),
        ([*data, '--distance', 'x'], 'distance'),
        ([*data, '--rerank'], 'rerank'),
        ([*data, '--gallery-widths', '1'], 'gallery-widths'),
        ([*data, '--gallery-checkpoint', '/nope'], '/nope'),
        ([*data, '--std', '0'], 'std'),
        ([*data, '--crop-pct', '0'], 'crop.pct'),
        ([*data, '-b', '0'], 'batch.size'),
        ([*data, '--on-error', 'x'], 'on-error'),
        (['--data', 'nope'], 'nope'),
        (['--data', 'folder'], 'data-dir'),
        (['--data', 'glyphs', '--data-dir', 'x'], 'root|data-dir'),
        ([], 'data'),
        (['--data', 'folder', '--data-dir', '/nope'], '/nope'),
        ([*data[:-1], 'train_share=7'], 'train_share'),
        ([*data[:-1], 'no_such=1'], 'no_such'),
        ([*data[:-1], 'camera_pattern=('], 'camera_pattern'),
        ([*data, '--input-size', '1', '32', '32', '--mean', '0.1', '0.2'], 'mean|input'),
        ([*data, '--use-ema'], 'use-ema'),
        ([*data, '--model', 'resnet18'], 'model'),
        ([*data, '--output', '/dev/null/x'], '/dev/null'),
    )
    for argv, needle in wrong:
        given = argv if '--output' in argv else [*argv, '--output']
        yield Case(
            'flags: eval',
            _named(argv),
            lambda f, a=argv, g=given: [*base, *(a if g is a else [*g, str(f / 'out')])],
            needle,
        )


def export_and_publish(materials: Materials) -> Iterator[Case]:
    """Flags of `export` and `publish --dry-run`, quickstart's, and the program's own."""
    base = ['export', str(materials.widths), *DEVICE]
    wrong: tuple[tuple[list[str], str], ...] = (
        ([*base, '--widths', '0.3'], '0.3'),
        ([*base, '--widths', 'x'], 'widths'),
        ([*base, '--dim', '5'], 'dim'),
        ([*base, '--data', 'glyphs'], 'int8'),
        (['export', '/nope'], '/nope'),
        ([*base, '--std', '0'], 'std'),
        ([*base, '--crop-mode', 'x'], 'crop.mode'),
        ([*base, '--use-ema'], 'use-ema'),
        ([*base, '--data-kwargs', 'a=1'], 'data'),
        ([*base, '--output', '/dev/null/x'], '/dev/null'),
        *(
            (['publish', str(materials.whole), '--dry-run', '--license', 'mit', '--repo', repo], 'repo')
            for repo in ('a/b..c', 'a', 'a/b/c', '', '/', 'a/-b', 'a/b.git', 'a b/c', 'a/' + 'x' * 200)
        ),
        (['publish', '/nope', '--dry-run', '--repo', 'a/b'], '/nope'),
        (['publish', str(materials.whole), '--dry-run'], 'repo'),
        (['publish', str(materials.whole), '--dry-run', '--repo', 'a/b', '--matrix', '/nope'], '/nope'),
        (['quickstart', '--epochs', '0'], 'epochs'),
        (['quickstart', '--epochs', 'x'], 'epochs'),
        (['quickstart', '--lr', '-1'], 'lr'),
        (['quickstart', '--lr', 'nan'], 'lr'),
        (['quickstart', '-b', '0'], 'batch.size'),
        (['quickstart', '--img-size', '3'], 'img.size|input.size'),
        (['quickstart', '--img-size', '99999'], 'img.size|input.size'),
        (['quickstart', '--seed', '-1'], 'seed'),
        (['quickstart', '--threads', '1000000'], 'threads'),
        (['quickstart', '--data', 'folder'], 'data-dir'),
        (['quickstart', '--data', 'folder', '--data-dir', '/nope'], '/nope'),
        (['quickstart', '--identities', '1'], 'identities'),
        (['quickstart', '--data', 'sop'], 'data'),
        ([], 'COMMAND'),
        (['trian'], 'trian'),
        (['search'], 'GALLERY'),
        (['train', '--resume', '/nope'], '/nope'),
        (['train', '--resume', ''], 'resume|data'),
        (['train'], 'data'),
        (['eval'], 'checkpoint'),
    )
    for argv, needle in wrong:
        gives_output = argv[:1] in (['export'], ['quickstart']) and '--output' not in argv
        yield Case(
            'flags: others',
            _named(argv),
            lambda f, a=argv, g=gives_output: [*a, '--output', str(f / 'out')] if g else a,
            needle,
        )


def refit(materials: Materials) -> Iterator[Case]:
    """Flags of `refit`, which fits widths to the full one again."""
    images = ['--images', str(materials.images)]
    wrong: tuple[tuple[list[str], str], ...] = (
        ([*images, '--width', '0.3'], '0.3|width'),
        ([*images, '--width', 'nan'], 'width'),
        ([*images, '--width', 'x'], 'width'),
        ([*images, '--limit', '0'], 'limit'),
        ([*images, '--limit', '-5'], 'limit'),
        ([*images, '--seed', '-1'], 'seed'),
        ([*images, '--seed', 'x'], 'seed'),
        ([*images, '-b', '0'], 'batch.size'),
        ([*images, '--device', 'meta'], 'meta'),
        ([*images, '--flip'], 'flip'),
        ([*images, '--use-ema'], 'use-ema'),
        (['--images', '/nope'], '/nope'),
        (['--images', str(materials.narrow)], 'w0.5'),
        ([], 'images'),
    )
    for argv, needle in wrong:
        yield Case(
            'flags: refit',
            _named(argv),
            lambda f, a=argv: ['refit', str(materials.whole), *DEVICE, '--output', str(f / 'out'), *a],
            needle,
        )
    narrow = ['refit', str(materials.narrow), *DEVICE, *images]
    yield Case('flags: refit', 'a width alone', lambda f: [*narrow, '--output', str(f / 'out')], 'w0.5|width')


GENERATORS = (search, index, evaluate, export_and_publish, refit)
