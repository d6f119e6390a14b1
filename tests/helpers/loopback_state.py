"""What the Hub on the loopback interface knows: repositories, commits, files, and requests that are held up."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import xet_storage

TOKEN, USER = 'hf_loopback', 'user'


@dataclass(frozen=True)
class Blob:
    """A file's content in a commit: `oid` is its SHA-256 where it is large, else git's SHA-1 of it."""

    oid: str
    size: int
    large: bool


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)


@dataclass
class Hold:
    """Stops the next request of a kind: `reached` is set once it is there, and it goes on once `released` is."""

    method: str
    path: str
    after: bool
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


class Hub:
    """What the server knows; `url` is what HF_ENDPOINT has to be, `storage` the origin of large files."""

    def __init__(self, xet: Path | None = None) -> None:
        self.xet = xet  # folder of the Xet storage; None for plain LFS
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.holds: list[Hold] = []
        self.waiting: list[Hold] = []
        self.lock = threading.RLock()
        self.url = self.storage = ''  # once it runs

    def hold(self, method: str, path: str, *, after: bool = False) -> Hold:
        """Stops the next request whose method is this and whose path matches, before or after it took effect."""
        self.holds.append(Hold(method, path, after))
        return self.holds[-1]

    def counts(self, method: str, path: str) -> int:
        """How many requests of a kind were answered with success."""
        return sum(m == method and re.search(path, p) is not None and s < 400 for m, p, s in self.requests)

    def file(self, repo: str, branch: str, path: str) -> bytes:
        """Content of a file at the tip of a branch."""
        found = self.repos[repo]
        return self.blobs[found.commits[found.branches[branch]].files[path].oid]

    def history(self, repo: str, branch: str) -> list[str]:
        """Titles of a branch's commits, newest first."""
        found, oid, titles = self.repos[repo], self.repos[repo].branches.get(branch), []
        while oid:
            titles.append(found.commits[oid].title)
            oid = found.commits[oid].parent
        return titles

    def commit(self, repo: Repo, branch: str, files: dict[str, Blob], title: str) -> str:
        parent = repo.branches.get(branch)
        oid = secrets.token_hex(20)
        repo.commits[oid] = Commit(oid, parent, title, files)
        repo.branches[branch] = oid
        return oid

    def size(self, oid: str) -> int:
        """Bytes of a large file."""
        if oid in self.blobs:
            return len(self.blobs[oid])
        found = xet_storage.find(self.xet, oid) if self.xet else None
        if found is None:
            raise RefusedError(400, 'LFS pointer to a file that does not exist')
        return found[1]

    def find(self, name: str, user: str | None) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and user is None):
            raise RefusedError(404 if user else 401, 'Repository not found', 'RepoNotFound')
        return repo


def commit_of(repo: Repo, revision: str) -> Commit:
    oid = repo.branches.get(revision, revision)
    if oid not in repo.commits:
        raise RefusedError(404, f'Invalid rev id: {revision}', 'RevisionNotFound')
    return repo.commits[oid]
