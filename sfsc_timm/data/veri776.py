"""`veri776`: vehicle re-identification (Liu et al., ECCV 2016 and VeRi's PROVID, 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import named_samples
from ._registry import register_data
from ._types import RetrievalData

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  VeRi/                             (root)
    image_train/0001_c001_00016450_0.jpg ...
    image_query/0002_c002_00030600_0.jpg ...
    image_test/0002_c002_00030600_0.jpg ..."""

# identity _ c camera _ time stamp _ number
_NAME = r'(?P<identity>-1|\d+)_c(?P<camera>\d{3})_'


@register_data('veri776')
def veri776(root: Path) -> RetrievalData:
    """Reads VeRi-776 with the image-to-image protocol: 37,778 training images of 576 vehicles, 1,678 queries of 200.

    The 11,579 gallery images (`image_test`) hold the query images too; like all images of the same vehicle from the
    query's own camera, they do not count (the data set's jk_index.txt lists the same ones).

    Args:
        root: The unpacked folder.

    Raises:
        FileNotFoundError: A folder is missing or empty.
        ValueError: An image's name is not in the data set's form.
    """
    train, query, gallery = (
        named_samples(root, folder, _NAME, TREE) for folder in ('image_train', 'image_query', 'image_test')
    )
    return RetrievalData('veri776', train, query, gallery)
