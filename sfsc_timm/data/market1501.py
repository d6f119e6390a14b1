"""`market1501`: person re-identification (Zheng et al., Scalable Person Re-identification, ICCV 2015)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ._files import named_samples
from ._registry import register_data
from ._types import DISTRACTOR, RetrievalData

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  Market-1501-v15.09.15/            (root)
    bounding_box_train/0002_c1s1_000451_03.jpg ...
    query/0001_c1s1_001051_00.jpg ...
    bounding_box_test/0000_c1s1_000151_01.jpg ..."""

# identity _ c camera s sequence _ frame _ box
_NAME = r'(?P<identity>-1|\d{4})_c(?P<camera>[1-6])s\d_'


@register_data('market1501')
def market1501(root: Path) -> RetrievalData:
    """Reads Market-1501: 751 training identities, 3,368 queries of 750, six cameras.

    Images of the gallery numbered -1 are junk and left out, 15,913 of 19,732 stay; those numbered 0000 are
    distractors, which stay as non-matches.

    Args:
        root: The unpacked folder.

    Raises:
        FileNotFoundError: A folder is missing or empty.
        ValueError: An image's name is not in the data set's form.
    """
    train, query, gallery = (
        named_samples(root, folder, _NAME, TREE) for folder in ('bounding_box_train', 'query', 'bounding_box_test')
    )
    gallery = [replace(sample, identity=DISTRACTOR) if sample.identity == 0 else sample for sample in gallery]
    return RetrievalData('market1501', train, query, gallery)
