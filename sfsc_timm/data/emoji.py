"""`emoji`: instance retrieval across drawing styles, rebuilt by anyone from openly licensed emoji sets.

Identity is the emoji (its Unicode sequence), camera is the design: find Google's owl with Microsoft's. `build_emoji`
makes the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import hash_order, require
from ._registry import register_data
from .manifest import from_rows, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from ._types import RetrievalData

TREE = """\
  ROOT/
    manifest.csv
    LICENSES.md
    noto/1f600.png ...
    twemoji/1f600.png ... (and five more designs)
  which sfsc_timm.data.build_emoji(ROOT) makes."""

_VALIDATION_SHARE = 0.2
_VALIDATION_SEED = 1


@register_data('emoji')
def emoji(root: Path, *, validation: bool = False) -> RetrievalData:
    """Reads the benchmark that `build_emoji` wrote.

    Query and gallery are the same images: each asks for the same emoji in the other designs.

    Args:
        root: The built folder.
        validation: Whether to divide the training identities instead, 80 % for training and 20 % for validation,
            which take the place of the test: for choosing settings without looking at the test identities.

    Raises:
        FileNotFoundError: The folder is not built.
    """
    rows = read_manifest(require(root / 'manifest.csv', TREE))
    if validation:
        rows = [row for row in rows if row.split == 'train']
        order = hash_order({row.identity for row in rows}, _VALIDATION_SEED)
        held_out = set(order[: round(_VALIDATION_SHARE * len(order))])
        rows = [row._replace(split='test') if row.identity in held_out else row for row in rows]
    require(rows[0].path, TREE)
    return from_rows('emoji', rows)
