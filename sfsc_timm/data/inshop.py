"""`inshop`: In-shop Clothes Retrieval of DeepFashion (Liu et al., DeepFashion, CVPR 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import number, read_rows, read_text, require_ends, require_entry
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  In-shop Clothes Retrieval Benchmark/  (root)
    Eval/list_eval_partition.txt        (or list_eval_partition.txt)
    Img/img/WOMEN/Dresses/id_00000002/02_1_front.jpg ...   (or img/WOMEN/...)"""


@register_data('inshop')
def inshop(root: Path) -> RetrievalData:
    """Reads In-shop: 25,882 training images of 3,997 items, 14,218 queries and 12,612 gallery images of 3,985.

    Args:
        root: The unpacked folder, with img.zip unpacked too.

    Raises:
        FileNotFoundError: The partition or the images are missing.
        ValueError: The partition is cut off or a line is not in the data set's form.
    """
    flat = (root / 'list_eval_partition.txt').exists()
    file = require_entry(root, 'list_eval_partition.txt' if flat else 'Eval/list_eval_partition.txt', TREE)
    folder = root if (root / 'img').exists() else require_entry(root, 'Img/img', TREE).parent
    splits: dict[str, list[Sample]] = {'train': [], 'query': [], 'gallery': []}
    rows = read_rows(file, 'image_name item_id evaluation_status', header=2)
    for path, item, split in rows:
        if split not in splits:
            raise ValueError(f'{file}: the evaluation status of {path} must be one of {list(splits)}, got {split!r}.')
        splits[split].append(Sample(folder / path, number(item.removeprefix('id_'), 'item_id', f'{file}, {path}')))
    expected = number(read_text(file).split('\n', 1)[0].strip(), 'the first line', file)
    if expected != len(rows):
        raise ValueError(f'{file} is cut off: its first line announces {expected} images, it lists {len(rows)}.')
    for samples in splits.values():
        require_ends(samples, TREE)
    return RetrievalData(
        'inshop', splits['train'], splits['query'], splits['gallery'], cameras=False, ks=(1, 10, 20, 30)
    )
