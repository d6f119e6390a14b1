"""What each request to the Hub on the loopback interface is answered with."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers import xet_storage
from helpers.loopback_state import USER, Blob, RefusedError, Repo, commit_of, git_sha1

if TYPE_CHECKING:
    from helpers.loopback import Handler

LARGE = ('.safetensors', '.bin', '.onnx', '.png')


def whoami(request: Handler) -> Any:
    user = request.writer()
    token = {'displayName': 'test', 'role': 'write'}
    return {'type': 'user', 'name': user, 'orgs': [], 'auth': {'type': 'access_token', 'accessToken': token}}


def validate_yaml(request: Handler) -> Any:
    return {'errors': [], 'warnings': []}


def create_repo(request: Handler) -> Any:
    asked, hub = request.json, request.hub
    name = f'{asked.get("organization") or request.writer()}/{asked["name"]}'
    request.writer(name)
    url = {'url': f'{hub.url}/{name}'}
    with hub.lock:
        if name in hub.repos:
            raise RefusedError(409, 'You already created this model repo', **url)
        repo = hub.repos[name] = Repo(asked.get('visibility') == 'private' or bool(asked.get('private')))
        content = ''.join(f'*{suffix} filter=lfs\n' for suffix in LARGE).encode()
        blob = Blob(git_sha1(content), len(content), False)
        hub.blobs[blob.oid] = content
        hub.commit(repo, 'main', {'.gitattributes': blob}, 'initial commit')
    return {**url, 'name': name, 'id': name}


def info(request: Handler, name: str, revision: str = 'main') -> Any:
    repo = request.hub.find(name, request.user)
    commit = commit_of(repo, revision)
    siblings = [{'rfilename': path} for path in commit.files]
    date = '2026-01-01T00:00:00.000Z'
    return {
        '_id': '0', 'id': name, 'modelId': name, 'author': USER, 'sha': commit.oid, 'private': repo.private,
        'siblings': siblings, 'tags': [], 'downloads': 0, 'likes': 0, 'lastModified': date, 'createdAt': date,
    }  # fmt: skip


def tree(request: Handler, name: str, revision: str) -> Any:
    files = commit_of(request.hub.find(name, request.user), revision).files
    entries = []
    for path, blob in sorted(files.items()):
        entry: dict[str, Any] = {'type': 'file', 'path': path, 'size': blob.size, 'oid': blob.oid}
        if blob.large:
            entry.update(oid=git_sha1(blob.oid.encode()), lfs={'oid': blob.oid, 'size': blob.size, 'pointerSize': 134})
        entries.append(entry)
    return (entries,)


def refs(request: Handler, name: str) -> Any:
    branches = request.hub.find(name, request.user).branches
    listed = [{'name': n, 'ref': f'refs/heads/{n}', 'targetCommit': oid} for n, oid in branches.items()]
    return {'branches': listed, 'tags': [], 'converts': [], 'pullRequests': []}


def commits(request: Handler, name: str, revision: str) -> Any:
    repo = request.hub.find(name, request.user)
    found, commit = [], commit_of(repo, revision)
    while True:
        found.append({
            'id': commit.oid, 'title': commit.title, 'message': '', 'date': '2026-01-01T00:00:00.000Z', 'authors': []
        })  # fmt: skip
        if commit.parent is None:
            return (found,)
        commit = repo.commits[commit.parent]


def branch(request: Handler, name: str, new: str) -> Any:
    request.writer(name)
    with request.hub.lock:
        repo = request.hub.find(name, USER)
        if new in repo.branches:
            raise RefusedError(409, f'Reference already exists: refs/heads/{new}')
        repo.branches[new] = commit_of(repo, request.json.get('startingPoint') or 'main').oid
    return {}


def preupload(request: Handler, name: str, revision: str) -> Any:
    request.writer(name)
    files = commit_of(request.hub.find(name, USER), revision).files

    def answer(path: str) -> dict[str, Any]:
        mode = 'lfs' if path.endswith(LARGE) else 'regular'
        return {
            'path': path,
            'uploadMode': mode,
            'shouldIgnore': False,
            'oid': files[path].oid if path in files else None,
        }

    return {'files': [answer(file['path']) for file in request.json['files']]}


def lfs_batch(request: Handler, name: str) -> Any:
    request.writer(name)
    hub, objects = request.hub, []
    for asked in request.json['objects']:
        entry = {'oid': asked['oid'], 'size': asked['size'], 'authenticated': True}
        if asked['oid'] not in hub.blobs:
            verify = {'href': f'{hub.url}/{name}.git/info/lfs/verify', 'header': {}}
            entry['actions'] = {'upload': {'href': f'{hub.storage}/lfs/{asked["oid"]}', 'header': {}}, 'verify': verify}
        objects.append(entry)
    return {'transfer': 'basic', 'objects': objects}


def lfs_put(request: Handler, oid: str) -> Any:
    if hashlib.sha256(request.content).hexdigest() != oid:
        raise RefusedError(400, 'the content has another SHA-256')
    request.hub.blobs[oid] = request.content
    return (b'',)


def lfs_verify(request: Handler, name: str) -> Any:
    asked = request.json
    if len(request.hub.blobs.get(asked['oid'], b'')) != asked['size']:
        raise RefusedError(404, 'not uploaded')
    return {}


def lfs_get(request: Handler, oid: str) -> Any:
    return request.hub.blobs[oid], {'ETag': f'"{oid}"'}


def xet_token(request: Handler, name: str, kind: str, revision: str) -> Any:
    request.writer(name) if kind == 'write' else request.hub.find(name, request.user)
    if request.hub.xet is None:
        raise RefusedError(404, 'no Xet here')
    url, until = f'local://{request.hub.xet}', int(time.time()) + 3600
    headers = {'X-Xet-Cas-Url': url, 'X-Xet-Access-Token': 'x', 'X-Xet-Token-Expiration': until}
    return {'accessToken': 'x', 'exp': until, 'casUrl': url}, headers


def commit(request: Handler, name: str, revision: str) -> Any:
    request.writer(name)
    head, *lines = (json.loads(line) for line in request.content.splitlines() if line.strip())
    hub = request.hub
    with hub.lock:
        repo = hub.find(name, USER)
        tip = repo.branches[revision]
        if (parent := head['value'].get('parentCommit')) and parent != tip:
            raise RefusedError(412, 'A commit has happened since. Please refresh and try again.')
        files = dict(repo.commits[tip].files)
        for line in lines:
            value = line['value']
            if line['key'] == 'file':
                content = base64.b64decode(value['content'])
                files[value['path']] = Blob(git_sha1(content), len(content), False)
                hub.blobs[git_sha1(content)] = content
            elif line['key'] == 'lfsFile':
                files[value['path']] = Blob(value['oid'], hub.size(value['oid']), True)
            else:
                assert line['key'] == 'deletedFile', line
                del files[value['path']]
        oid = hub.commit(repo, revision, files, head['value']['summary'])
    return {'success': True, 'commitOid': oid, 'commitUrl': f'{hub.url}/{name}/commit/{oid}', 'hookOutput': ''}


def resolve(request: Handler, name: str, revision: str, path: str) -> Any:
    found = commit_of(request.hub.find(name, request.user), revision)
    headers: dict[str, Any] = {'X-Repo-Commit': found.oid}
    blob = found.files.get(path)
    if blob is None:
        missing = {'X-Error-Code': 'EntryNotFound', 'X-Error-Message': 'Entry not found'}
        return {'error': 'Entry not found'}, {**headers, **missing}, 404
    headers.update({'ETag': f'"{blob.oid}"', 'X-Linked-Etag': f'"{blob.oid}"', 'X-Linked-Size': blob.size})
    if blob.large and request.hub.xet and blob.oid not in request.hub.blobs:
        found_there = xet_storage.find(request.hub.xet, blob.oid)
        assert found_there is not None
        route = f'{request.hub.url}/api/models/{name}/xet-read-token/{found.oid}'
        headers.update({'X-Xet-Hash': found_there[0], 'X-Xet-Refresh-Route': route})
    if blob.large:
        return b'', {**headers, 'Location': f'{request.hub.storage}/lfs/{blob.oid}'}, 302
    return request.hub.blobs[blob.oid], headers


_ID, _PART = r'([\w.-]+/[\w.-]+)', '([^/]+)'
_API = f'/api/models/{_ID}'
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Any]]] = [
    (('GET',), '/api/whoami-v2', whoami),
    (('POST',), '/api/validate-yaml', validate_yaml),
    (('POST',), '/api/repos/create', create_repo),
    (('GET',), _API, info),
    (('GET',), f'{_API}/revision/{_PART}', info),
    (('GET',), f'{_API}/tree/{_PART}', tree),
    (('GET',), f'{_API}/refs', refs),
    (('GET',), f'{_API}/commits/{_PART}', commits),
    (('POST',), f'{_API}/branch/{_PART}', branch),
    (('POST',), f'{_API}/preupload/{_PART}', preupload),
    (('POST',), f'{_API}/commit/{_PART}', commit),
    (('GET',), f'{_API}/xet-(read|write)-token/{_PART}', xet_token),
    (('POST',), rf'/{_ID}\.git/info/lfs/objects/batch', lfs_batch),
    (('POST',), rf'/{_ID}\.git/info/lfs/verify', lfs_verify),
    (('PUT',), '/lfs/([0-9a-f]{64})', lfs_put),
    (('GET', 'HEAD'), '/lfs/([0-9a-f]{64})', lfs_get),
    (('GET', 'HEAD'), f'/{_ID}/resolve/{_PART}/(.+)', resolve),
]
