"""`sop`: Stanford Online Products (Oh Song et al., Lifted Structured Feature Embedding, CVPR 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import number, read_rows, require_ends, require_entry
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  Stanford_Online_Products/         (root)
    Ebay_train.txt
    Ebay_test.txt
    bicycle_final/111085122871_0.JPG ... (and eleven more folders)"""


@register_data('sop')
def sop(root: Path) -> RetrievalData:
    """Reads Stanford Online Products: 59,551 training images of 11,318 products, 60,502 test images of 11,316.

    The test images are query and gallery at once.

    Args:
        root: The unpacked folder.

    Raises:
        FileNotFoundError: A list or the images are missing.
        ValueError: A line of a list is not in the data set's form.
    """
    train, test = (_read(root, name) for name in ('Ebay_train.txt', 'Ebay_test.txt'))
    return RetrievalData('sop', train, test, test, cameras=False, shared=True, ks=(1, 10, 100, 1000))


def _read(root: Path, name: str) -> list[Sample]:
    file = require_entry(root, name, TREE)
    rows = read_rows(file, 'image_id class_id super_class_id path', header=1)
    return require_ends(
        [Sample(root / path, number(label, 'class_id', f'{file}, {path}')) for _, label, _, path in rows], TREE
    )
