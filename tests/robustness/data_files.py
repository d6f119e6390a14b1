"""Data sets that are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers import trees
from helpers.trees import plant

from .case import Case
from .materials import Materials

HEAD = 'path,identity,camera,split\n'
GOOD = 'a.jpg,ann,1,train\nb.jpg,bob,1,train\nc.jpg,cid,1,query\nd.jpg,cid,2,gallery\ne.jpg,dan,2,gallery\n'


def _manifest(content: str | bytes) -> Callable[[Path], list[str]]:
    def prepare(folder: Path) -> list[str]:
        plant(folder, 'a.jpg')
        (folder / 'list.csv').write_bytes(content.encode() if isinstance(content, str) else content)
        return ['data', 'manifest', '--data-dir', str(folder / 'list.csv')]

    return prepare


def manifests(_: Materials) -> Iterator[Case]:
    """Lists of images as CSV."""
    lines: list[tuple[str, str | bytes, str]] = [
        ('empty', '', 'list.csv'),
        ('a header alone', HEAD, 'list.csv'),
        ('no header', GOOD, 'list.csv.*path'),
        ('no column split', 'path,identity\na.jpg,ann\n', 'split'),
        ('a column twice', HEAD.replace('camera', 'split') + GOOD, 'split'),
        ('an unknown split', HEAD + GOOD.replace('query', 'probe'), 'line 4.*probe'),
        ('no identity', HEAD + GOOD.replace('ann', ''), 'line 2'),
        ('no path', HEAD + GOOD.replace('b.jpg', ''), 'line 3'),
        ('cells too many', HEAD + GOOD.replace('ann', 'ann,x'), 'line 2'),
        ('cells too few', HEAD + GOOD.replace(',1,query', ''), 'line 4'),
        ('cameras for some', HEAD + GOOD.replace('cid,2', 'cid,'), 'camera'),
        ('an image in train and gallery', HEAD + GOOD + 'a.jpg,dan,2,gallery\n', r'a\.jpg'),
        ('an image in train and query', HEAD + GOOD + 'a.jpg,cid,2,query\n', r'a\.jpg'),
        ('an image of two identities', HEAD + GOOD + 'd.jpg,dan,2,gallery\n', r'd\.jpg'),
        ('a distractor with an identity', HEAD + GOOD + 'd.jpg,-1,2,gallery\n', r'd\.jpg'),
        ('a query twice', HEAD + GOOD + 'c.jpg,cid,1,query\n', r'c\.jpg'),
        ('a gallery image twice', HEAD + GOOD + 'e.jpg,dan,2,gallery\n', r'e\.jpg'),
        ('a training image twice', HEAD + GOOD + 'a.jpg,ann,1,train\n', r'a\.jpg'),
        ('a query in the gallery', HEAD + GOOD + 'c.jpg,cid,2,gallery\n', r'c\.jpg'),
        ('another spelling of a path', HEAD + GOOD + 'x/../a.jpg,dan,2,gallery\n', r'a\.jpg'),
        ('an identity in both', HEAD + GOOD.replace('dan', 'ann'), 'identities'),
        ('one identity', 'path,identity,split\na.jpg,x,test\nb.jpg,x,test\n', 'one identity'),
        ('no query', HEAD + 'a.jpg,ann,1,train\nd.jpg,cid,2,gallery\n', 'query'),
        ('no gallery', HEAD + 'a.jpg,ann,1,train\nc.jpg,cid,1,query\n', 'gallery'),
        ('no match', HEAD + GOOD.replace('cid,2', 'dan,2'), 'match'),
        ('a query of nothing', HEAD + GOOD.replace('cid,1', '-1,1'), 'distractor'),
        ('test and query', HEAD + GOOD.replace('e.jpg,dan,2,gallery', 'e.jpg,dan,2,test'), 'split'),
        ('not UTF-8', b'path,identity,split\n\xe9.jpg,a,test\n', 'list.csv.*UTF-8'),
        ('UTF-16', (HEAD + GOOD).encode('utf-16'), 'list.csv'),
        ('a NUL', HEAD + GOOD.replace('b.jpg', 'b\0.jpg'), 'line 3'),
        ('an open quote', HEAD + GOOD.replace('ann', '"ann'), 'list.csv'),
        ('a field without end', HEAD + 'a' * 200_000 + ',x,1,train\n', 'line 2'),
        ('binary', bytes(range(256)) * 4, 'list.csv'),
        ('semicolons', (HEAD + GOOD).replace(',', ';'), 'list.csv'),
        ('the first image missing', HEAD + GOOD.replace('a.jpg', 'z.jpg'), r'z\.jpg'),
    ]
    for name, content, needle in lines:
        yield Case('data: manifests', name, _manifest(content), needle)

    def pipe(folder: Path) -> list[str]:
        os.mkfifo(folder / 'list.csv')
        return ['data', 'manifest', '--data-dir', str(folder / 'list.csv')]

    yield Case('data: manifests', 'a pipe', pipe, 'list.csv')
    yield Case(
        'data: manifests', 'a folder', lambda folder: ['data', 'manifest', '--data-dir', str(folder)], 'case|\\d'
    )


def _list(name: str, file: str, change: Callable[[str], str | bytes]) -> Callable[[Path], list[str]]:
    def prepare(folder: Path) -> list[str]:
        root = folder / 'data'
        if name in {'market1501', 'veri776'}:
            plant(root, *getattr(trees, name.upper()))
        else:
            getattr(trees, name)(root)
        content = change((root / file).read_text()) if (root / file).is_file() else change('')
        plant(root, file)
        (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return ['data', name, '--data-dir', str(root)]

    return prepare


def lists(_: Materials) -> Iterator[Case]:
    """The lists of the standard benchmarks, and names of files that say identities."""
    changes: list[tuple[str, Callable[[str], str | bytes], str]] = [
        ('cut in mid-line', lambda text: text[: len(text) - 9], ''),
        ('without its first line', lambda text: text.split('\n', 1)[1], ''),
        ('its last line twice', lambda text: text.rstrip('\n') + '\n' + text.splitlines()[-1] + '\n', ''),
        ('empty', lambda text: '', ''),
        ('not text', lambda text: b'\xff\xfe\0\x80' + text.encode(), ''),
        ('with a column too many', lambda text: text.replace('\n', ' x\n'), ''),
    ]
    files = [
        ('sop', 'Ebay_test.txt'),
        ('sop', 'Ebay_train.txt'),
        ('cub200', 'images.txt'),
        ('cub200', 'image_class_labels.txt'),
        ('msmt17', 'list_query.txt'),
        ('msmt17', 'list_gallery.txt'),
        ('inshop', 'Eval/list_eval_partition.txt'),
    ]
    # Lists without header or count cannot tell that lines are missing; a number may lose digits at its end.
    untold = {('cub200', 'cut in mid-line'), ('msmt17', 'without its first line'), ('cub200', 'without its first line')}
    for name, file in files:
        for what, change, _ in changes:
            if (name, what) in untold or (name, file, what) == ('sop', 'Ebay_train.txt', 'its last line twice'):
                continue
            yield Case('data: lists', f'{name}, {file} {what}', _list(name, file, change), r'\.txt|query|\.jpg|\.JPG')
    for name, file in (
        ('market1501', 'query/portrait.jpg'),
        ('market1501', 'bounding_box_test/0001_c9s1_1.jpg'),
        ('veri776', 'image_test/1_2.jpg'),
    ):
        yield Case('data: lists', f'{name}, {file}', _list(name, file, lambda text: text), Path(file).name)


def folders(_: Materials) -> Iterator[Case]:
    """Folders of identities, and options of readers."""
    cases: list[tuple[str, tuple[str, ...], list[str], str]] = [
        ('empty', (), [], 'folders? with images'),
        ('images alone', ('1.jpg', '2.jpg'), [], 'folder'),
        ('one identity', ('a/1.jpg', 'a/2.jpg'), ['train_share=0'], 'one identity'),
        ('texts', ('a/1.txt', 'b/1.txt'), [], '2 .txt'),
        ('HEIC among images', ('a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'b/2.jpg', 'b/3.heic'), [], r'1 \.heic'),
        ('an identity in both', ('train/a/1.jpg', 'test/a/1.jpg', 'test/a/2.jpg'), [], 'identities'),
        ('no train', ('query/a/1.jpg', 'gallery/a/1.jpg'), [], 'train'),
        ('no match', ('train/a/1.jpg', 'test/b/1.jpg', 'test/c/1.jpg'), [], 'match'),
    ]
    options = [
        'train_share=1',
        'train_share=-1',
        'train_share=x',
        'train_share=None',
        'seed=x',
        'seed=1.5',
        'camera_pattern=5',
        'camera_pattern=(',
        'camera_pattern=c',
        'camera_pattern=(z)',
        'no_such=1',
        'seed=[1]',
        'train_share=True',
    ]
    cases += [(option, ('a/1.jpg', 'b/1.jpg', 'b/2.jpg'), [option], option.split('=')[0]) for option in options]
    for name, files, given, needle in cases:

        def prepare(folder: Path, files: tuple[str, ...] = files, given: list[str] = given) -> list[str]:
            (folder / 'photos').mkdir()
            more = ['--data-kwargs', *given] if given else []
            return ['data', 'folder', '--data-dir', str(plant(folder / 'photos', *files)), *more]

        yield Case('data: folders', name, prepare, needle)
    for option in (
        'size=1',
        'size=1000000',
        'size=x',
        'seed=-1',
        'distortion=9',
        'distortion=nan',
        'queries=0',
        'queries=2.5',
        'train_identities=1',
        'train_identities=9999999',
        'test_identities=x',
        'size=True',
        'seed=99e99',
    ):
        yield Case(
            'data: folders',
            f'glyphs {option}',
            lambda _, o=option: ['data', 'glyphs', '--data-kwargs', o],
            option.split('=')[0],
        )
    for argv, needle in (
        (['data', 'nope'], 'nope'),
        (['data', 'folder'], 'data-dir'),
        (['data', 'glyphs', '--data-dir', 'x'], 'root|data-dir'),
        (['data', 'folder', '--build'], 'build'),
        (['data', '--data-dir', 'x'], 'name'),
        (['data', 'sop', '--data-dir', '/nope'], '/nope'),
        (['data', 'emoji', '--data-dir', '/nope', '--data-kwargs', 'validation=yes'], 'validation'),
        (['data', 'folder', '--data-dir', 'a\0b'], 'Not found: a'),
    ):
        yield Case('data: folders', ' '.join(argv).replace('\0', 'NUL'), lambda _, a=argv: a, needle)


GENERATORS = (manifests, lists, folders)
