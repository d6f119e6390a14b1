"""A Hugging Face Hub on the loopback interface, in threads of the test: what the real client asks for, and no more.

Model repositories with branches, LFS storage on another port (as the Hub's storage is another origin), downloads with
the headers that the client's cache is built on. Requests can be held up before or after they take effect, so that a
test can kill a client at that very point. State is in memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from helpers.loopback_routes import ROUTES
from helpers.loopback_state import TOKEN, USER, Hub, RefusedError

__all__ = ['Handler', 'running']


@contextmanager
def running(xet: Path | None = None) -> Iterator[Hub]:
    """A Hub that answers, until the end of the block; afterwards its state can still be read."""
    hub = Hub(xet)
    servers = [_server(hub), _server(hub)]
    hub.url, hub.storage = (f'http://127.0.0.1:{server.server_address[1]}' for server in servers)
    try:
        yield hub
    finally:
        for hold in hub.waiting:
            hold.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def _server(hub: Hub) -> ThreadingHTTPServer:
    handler = type('BoundHandler', (Handler,), {'hub': hub})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()
    return server


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # one write per response, else Nagle and delayed acknowledgement cost 40 ms each
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        status, path = 0, urlsplit(self.path).path
        try:
            with_body = self.command in ('POST', 'PUT', 'DELETE')
            self.content = self.rfile.read(int(self.headers.get('Content-Length') or 0)) if with_body else b''
            self._wait(path, after=False)
            status = self._route(path)
        except RefusedError as refusal:
            status = refusal.status
            headers = {'X-Error-Message': refusal.message, 'X-Request-Id': '0'}
            if refusal.code:
                headers['X-Error-Code'] = refusal.code
            self.reply({'error': refusal.message, **refusal.body}, headers, status)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.hub.requests.append((self.command, path, status))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _route(self, path: str) -> int:
        for methods, pattern, answer in ROUTES:
            if self.command in methods and (match := re.fullmatch(pattern, path)):
                pending = answer(self, *(unquote(part) for part in match.groups()))
                self._wait(path, after=True)
                given = pending if isinstance(pending, tuple) else (pending,)
                body, headers, status = given + ({}, 200)[len(given) - 1 :]
                self.reply(body, headers, status)
                return status
        raise RefusedError(404, f'no such route: {self.command} {path}')

    def _wait(self, path: str, after: bool) -> None:
        for hold in self.hub.holds:
            if hold.after == after and hold.method == self.command and re.search(hold.path, path):
                self.hub.holds.remove(hold)
                self.hub.waiting.append(hold)
                hold.reached.set()
                hold.released.wait()

    def reply(self, body: Any, headers: dict[str, Any], status: int) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/octet-stream' if isinstance(body, bytes) else 'application/json')
        headers.setdefault('Content-Length', len(content))
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    @property
    def user(self) -> str | None:
        given = self.headers.get('Authorization')
        if given is None:
            return None
        if given != f'Bearer {TOKEN}':
            raise RefusedError(401, 'Invalid credentials in Authorization header')
        return USER

    def writer(self, repo: str | None = None) -> str:
        user = self.user
        if user is None:
            raise RefusedError(401, 'Invalid username or password.')
        if repo is not None and repo.split('/')[0] != user:
            raise RefusedError(403, f"You don't have the rights to write to {repo}")
        return user

    @property
    def json(self) -> Any:
        return json.loads(self.content or b'{}')
