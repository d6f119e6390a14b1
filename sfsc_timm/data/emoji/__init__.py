"""`emoji`: instance retrieval across drawing styles, rebuilt by anyone from openly licensed emoji sets.

Identity is the emoji (its Unicode sequence), camera is the design: find Google's owl with Microsoft's. `build_emoji`
makes the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._files import hash_order, require
from .._registry import register_data
from ..manifest import from_rows, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from .._types import RetrievalData

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
def emoji(root: Path, *, validation: bool = False, everything: bool = False) -> RetrievalData:
    """Reads the benchmark that `build_emoji` wrote.

    Query and gallery are the same images: each asks for the same emoji in the other designs.

    Args:
        root: The built folder.
        validation: Whether to divide the training identities instead, 80 % for training and 20 % for validation,
            which take the place of the test: for choosing settings without looking at the test identities.
        everything: Whether the test identities are trained on, too: for weights that are to be used. What is then
            measured on them says nothing about new emoji, and the data set's name says so.

    Raises:
        FileNotFoundError: The folder is not built.
        ValueError: Both options are asked for.
    """
    if validation and everything:
        raise ValueError('validation must be False where everything is trained on, got True; leave one of them out.')
    rows = read_manifest(require(root / 'manifest.csv', TREE))
    if validation:
        rows = [row for row in rows if row.split == 'train']
        order = hash_order({row.identity for row in rows}, _VALIDATION_SEED)
        held_out = set(order[: round(_VALIDATION_SHARE * len(order))])
        rows = [row._replace(split='test') if row.identity in held_out else row for row in rows]
    require(rows[0].path, TREE)
    if everything:
        rows += [row._replace(split='train') for row in rows if row.split == 'test']
        return from_rows('emoji (trained on)', rows, overlap=True)
    return from_rows('emoji', rows)
