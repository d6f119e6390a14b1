"""Writing a plan to the Hugging Face Hub, so that it can be interrupted and repeated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._files import scratch_folder
from .._version import __version__
from ..checkpoints.errors import clear_errors
from .card_content import About
from .plan import MAIN, OURS, Branch, Plan, PlannedFile, prepare

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ['Publication', 'check_login', 'publish', 'push']


@dataclass(frozen=True)
class Publication:
    """What a publish did.

    Attributes:
        plan: What every branch holds now (or would, after a dry run). Its local files are gone.
        commits: Each branch's new commit, None where nothing had changed; empty after a dry run.
    """

    plan: Plan
    commits: dict[str, str | None]


def publish(
    source: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    about: About | None = None,
    matrix: str | os.PathLike[str] | None = None,
    onnx: bool = False,
    **loading: Any,
) -> Publication:
    """Publishes a slimmable checkpoint: `main` holds the whole model, a branch per width (w0.25, ...) the dense one.

    Then `timm.create_model('hf-hub:user/name@w0.25', pretrained=True)` gives that width with timm alone (where timm
    has so narrow a model, else with this package imported, which the card says), and `load_width` does with checks.

    A branch is one commit, and `main`, which declares the compatibility id, comes last. So after an interruption at any
    point `load_width` refuses what does not belong together, and repeating the call completes it. Where nothing has
    changed nothing is committed. The token is that of the client's own login.

    Args:
        source: Checkpoint of a slimmable model (folder, .safetensors, .pth.tar) or folder of a training run.
        repo: 'user/name'; created if it is not there.
        private: Create it as a private one; an existing public one is refused.
        dry_run: Make the files and list them, without network.
        about: What the card says that cannot be measured: licences, training data, command, ...
        matrix: Measured accuracy, as `sfsc-timm eval` writes it (None: matrix.json beside the checkpoint).
        onnx: Add model.onnx and preprocessing.json to each width.
        **loading: As for `load_checkpoint_model`: model, model_kwargs, use_ema, data_config.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It cannot be published, or there is no such user or organisation.
        PermissionError: No token, a wrong one, or one that may not write there.
        ConnectionError: No network, or someone else wrote at the same time.
    """
    if not dry_run:
        check_login()
    with scratch_folder('publish') as folder:
        plan = prepare(source, repo, folder, about=about, matrix=matrix, onnx=onnx, **loading)
        return Publication(plan, {} if dry_run else push(plan, private=private))


def check_login() -> None:
    """Looks for a token on this machine, before anything that takes time.

    Raises:
        PermissionError: There is none.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import LocalTokenNotFoundError

    with clear_errors('publishing'):
        if get_token() is None:
            raise LocalTokenNotFoundError


def push(plan: Plan, *, private: bool = False, on_branch: Callable[[str], object] = str) -> dict[str, str | None]:
    """Writes a plan to the Hub.

    Args:
        plan: What to write.
        private: As for `publish`.
        on_branch: Called with the name of each branch before it is written.

    Returns:
        Each branch's new commit, None where nothing had changed.

    Raises:
        As `publish`.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name='sfsc-timm', library_version=__version__)
    _open_repo(api, plan.repo, private)
    commits = {}
    for branch in plan.branches:
        on_branch(branch.name)
        with clear_errors(f'hf-hub:{plan.repo}@{branch.name}'):
            commits[branch.name] = _push_branch(api, plan, branch)
    return commits


def _open_repo(api: HfApi, repo: str, private: bool) -> None:
    """Makes sure that the repository is there, and private if that was asked for."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with clear_errors('publishing'):
        api.whoami()
    with clear_errors(f'hf-hub:{repo}'):
        try:
            info = api.repo_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private, exist_ok=True)
            return
    if private and not info.private:
        raise ValueError(f'private: hf-hub:{repo} exists and is public; change that in its settings, or use another.')


def _push_branch(api: HfApi, plan: Plan, branch: Branch) -> str | None:
    """Brings a branch to what is planned by one commit, or none."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    tip = _tip(api, plan.repo, branch.name)
    present = _present(api, plan.repo, tip)
    changed = [file for file in branch.files if not _same(present.get(file.path), file)]
    planned = {file.path for file in branch.files}
    stale = [path for path in present if path in OURS and path not in planned]
    if not changed and not stale:
        return None
    # Added as paths: the client streams them, and hashes large ones itself.
    operations: list[Any] = [CommitOperationAdd(file.path, str(file.local)) for file in changed]
    operations += [CommitOperationDelete(path) for path in stale]
    what = 'all widths' if branch.width is None else f'width {branch.width:g}'
    done = api.create_commit(
        plan.repo,
        operations,
        commit_message=f'Publish {what}',
        commit_description=f'compatibility id {plan.compatibility}',
        revision=branch.name,
        parent_commit=tip,
    )
    return str(done.oid)


def _tip(api: HfApi, repo: str, name: str) -> str:
    """Newest commit of a branch, which is made first if it is not there."""
    found = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).branches}
    if name not in found and name != MAIN:
        # From the repository's first commit, so that until its own commit the branch does not look like main.
        first = api.list_repo_commits(repo, revision=found[MAIN])[-1].commit_id
        api.create_branch(repo, branch=name, revision=first, exist_ok=True)
        found = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).branches}
    return str(found[name])


def _present(api: HfApi, repo: str, commit: str) -> dict[str, Any]:
    """Files of a commit, by path."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo, revision=commit, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _same(present: Any, file: PlannedFile) -> bool:
    if present is None or present.size != file.size:
        return False
    return bool(present.lfs.sha256 == file.sha256 if present.lfs else present.blob_id == file.git_sha1)
