"""What a publish writes: the files of every branch, made in a folder of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints.load import load_configured
from ..checkpoints.measurements import width_cost
from ..checkpoints.save import save_model, save_width, width_name
from ..checkpoints.source import Source, open_source, portable, with_accuracy
from ..evaluation import plot_matrix
from ..export.onnx import PREPROCESSING, export_onnx, write_preprocessing
from ..models import Slimmable
from .card import model_card, width_card
from .card_content import About, CardContent, PublishedWidth

__all__ = ['MAIN', 'OURS', 'Branch', 'Plan', 'PlannedFile', 'check_repo', 'prepare']

MAIN = 'main'
_WEIGHTS, _ONNX = 'model.safetensors', 'model.onnx'
# What a publish may write; other files in the repository are the user's and stay.
OURS = {
    'README.md', 'args.yaml', 'config.json', 'matrix.json', 'matrix.png', 'widths.json', _WEIGHTS, _ONNX, PREPROCESSING,
}  # fmt: skip


@dataclass(frozen=True)
class PlannedFile:
    """One file of a branch.

    Attributes:
        path: Its path in the repository.
        local: Where it lies here.
        size: In bytes.
    """

    path: str
    local: Path
    size: int

    @property
    def sha256(self) -> str:
        """Of the content, by which the Hub knows large files."""
        digest = hashlib.sha256()
        with self.local.open('rb') as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    @property
    def git_sha1(self) -> str:
        """Of the content as a blob of git, by which the Hub knows small files."""
        content = self.local.read_bytes()
        return hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Branch:
    """One branch of the repository.

    Attributes:
        name: Its name: main, or that of a width.
        width: The width; None for main.
        plain: Whether timm loads it without this package.
        files: What it is to hold.
    """

    name: str
    width: float | None
    plain: bool
    files: tuple[PlannedFile, ...]


@dataclass(frozen=True)
class Plan:
    """What a publish writes.

    Attributes:
        repo: 'user/name'.
        compatibility: The id that every branch carries.
        branches: In the order in which they are written: widths ascending, main last.
    """

    repo: str
    compatibility: str
    branches: tuple[Branch, ...]


def prepare(
    source: str | os.PathLike[str] | Source,
    repo: str,
    folder: Path,
    *,
    about: About | None = None,
    matrix: str | os.PathLike[str] | None = None,
    onnx: bool = False,
    on_step: Callable[[str], object] = str,
    **loading: Any,
) -> Plan:
    """Makes the files of every branch; costs are measured once, so the same checkpoint gives the same files again.

    Args:
        source: Checkpoint or training run, see `find_checkpoint`; or one that `open_source` has loaded already.
        repo: 'user/name'.
        folder: Empty folder to make the files in.
        about: What the card says that cannot be measured.
        matrix: File of the accuracy (None: matrix.json beside the checkpoint, if it is there).
        onnx: Add model.onnx and preprocessing.json to each width.
        on_step: Called with a line of text before each step.
        **loading: As for `load_checkpoint_model`.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is not a slimmable model, the matrix is another's, or `repo` is no id.
    """
    check_repo(repo)
    about = about or About()
    on_step('reading the checkpoint')
    opened = source if isinstance(source, Source) else open_source(source, **loading)
    read = with_accuracy(opened, matrix, about.note)
    model, identity = _without_classifier(read.model), read.checkpoint.compatibility
    preprocessing = read.checkpoint.preprocessing
    options: dict[str, Any] = {
        'data_config': preprocessing.to_dict(), 'compatibility': identity, 'space': read.checkpoint.space,
        'license': about.license,
    }  # fmt: skip
    parts = []
    for width in model.widths:
        on_step(f'width {width:g}')
        parts.append(_make_width(read, model, width, folder / width_name(width), onnx, options))
    on_step('the whole model')
    save_model(model, folder / MAIN, **options)
    card = CardContent(
        repo, model.pretrained_cfg['architecture'], identity, model.embed_dim, preprocessing, tuple(parts),
        about, read.arguments, read.matrix, read.of_this_model, model.embed_dims,
    )  # fmt: skip
    _write_texts(folder, card)
    branches = [_branch(folder, width_name(part.width), part.width, part.plain) for part in parts]
    return Plan(repo, identity, (*branches, _branch(folder, MAIN, None, False)))


def check_repo(repo: str) -> None:
    """Checks an id of the Hub.

    Raises:
        ValueError: It is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if not re.fullmatch(r'[\w.-]+/[\w.-]+', repo, re.ASCII):
        raise ValueError(f'repo must be user/name, of letters, digits, -, _ and ., got {repo!r}')
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f'repo must be a name that the Hugging Face Hub takes, got {repo!r}: {error}') from error


def _without_classifier(model: Slimmable) -> Slimmable:
    """A copy whose bare output is the embedding: nothing that is published needs the training classes."""
    model = deepcopy(model)
    model.reset_classifier(0)
    model.set_width(1.0)
    return model.eval()


def _make_width(
    read: Source, model: Slimmable, width: float, folder: Path, onnx: bool, options: dict[str, Any]
) -> PublishedWidth:
    """Makes a width's folder, but for its card, and loads it again to see that it works."""
    save_width(model, width, folder, allow_plugin=True, **options)
    dense: Any
    dense, section = load_configured(folder / _WEIGHTS)
    dense.eval()
    checkpoint = read.checkpoint
    if onnx:
        export_onnx(dense, folder / _ONNX, checkpoint.preprocessing.input_size)
        write_preprocessing(folder / PREPROCESSING, checkpoint, width)
    cost = width_cost(read.folder, checkpoint.compatibility, width, checkpoint.preprocessing.input_size, lambda: dense)
    architecture = json.loads((folder / 'config.json').read_text())['architecture']
    plain = not architecture.startswith('sfsc_')
    size = (folder / _WEIGHTS).stat().st_size
    return PublishedWidth(width, architecture, plain, cost, section['embedding'], size, onnx)


def _write_texts(folder: Path, content: CardContent) -> None:
    """Writes the cards, and into main what they show."""
    main = folder / MAIN
    (main / 'README.md').write_text(model_card(content), encoding='utf-8')
    widths = [asdict(part) for part in content.widths]
    (main / 'widths.json').write_text(json.dumps(widths, indent=1) + '\n', encoding='utf-8')
    if content.arguments:
        text = yaml.safe_dump(dict(content.arguments), sort_keys=True, allow_unicode=True)
        (main / 'args.yaml').write_text(text, encoding='utf-8')
    if content.matrix is not None:
        values = json.dumps(portable(content.matrix.to_dict()), indent=1)
        (main / 'matrix.json').write_text(values + '\n', encoding='utf-8')
        try:
            plot_matrix(content.matrix, main / 'matrix.png')
        except ImportError as error:
            raise ImportError(f"the card's heat map needs {error.name}: pip install 'sfsc-timm[plots]'") from error
    for part in content.widths:
        (folder / width_name(part.width) / 'README.md').write_text(width_card(content, part), encoding='utf-8')


def _branch(folder: Path, name: str, width: float | None, plain: bool) -> Branch:
    files = sorted(path for path in (folder / name).rglob('*') if path.is_file())
    planned = (PlannedFile(path.relative_to(folder / name).as_posix(), path, path.stat().st_size) for path in files)
    return Branch(name, width, plain, tuple(planned))
