"""HTTP around the routes: Python's own server, with bounds on connections, time and bytes."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from .refusal import Refusal
from .routes import Answer, Routes

__all__ = ['DemoServer']

_logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 512
_IDLE = 10  # seconds that a connection may be silent
_SENDING = 60.0  # seconds that a body may take
_PIECE = 1 << 16
_HERE = {'127.0.0.1', 'localhost', '::1'}
# Scripts and pictures of this server alone; the last three let ONNX Runtime use threads in the browser.
_HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Embedder-Policy': 'require-corp',
    'Cross-Origin-Resource-Policy': 'same-origin',
}


class DemoServer(ThreadingHTTPServer):
    """Serves a site; a thread for each connection, at most 512 of them; further ones wait.

    Bound to this machine alone it answers only requests that name this machine: otherwise a page of elsewhere, whose
    name is made to point here, could read the gallery.

    Args:
        routes: What is answered.
        host: Address to listen at.
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken, or the address is not of this machine; the message says what to do.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, routes: Routes, host: str = '127.0.0.1', port: int = 7860) -> None:
        self.routes = routes
        self._connections = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self.names = _HERE if host in _HERE else None
        self.address_family = AF_INET6 if ':' in host else AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise OSError(
                f'{host}:{port} cannot be listened at: {error}; choose another --port (0 takes a free one) or --host'
            ) from error

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host, port = str(self.server_address[0]), self.server_address[1]
        host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)  # noqa: S104  only compared
        return f'http://{f"[{host}]" if ":" in host else host}:{port}/'

    def server_bind(self) -> None:
        """Binds without asking for this machine's name, which may take long where there is no network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, once there are few enough."""
        if not self._connections.acquire(timeout=_IDLE):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Notes what went wrong with a connection; visitors who leave are no fault."""
        _logger.debug('a connection of %s ended', client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = 'HTTP/1.1'
    timeout = _IDLE
    _unread = 0
    server_version, sys_version = 'sfsc-timm', ''
    error_message_format, error_content_type = '%(message)s\n', 'text/plain; charset=utf-8'

    def do_GET(self) -> None:
        """Answers a request for a file or a picture."""
        self._answer(lambda: self.server.routes.get(self.path, gzip='gzip' in self.headers.get('Accept-Encoding', '')))

    do_HEAD = do_GET  # noqa: N815  the base class looks for this name

    def do_POST(self) -> None:
        """Answers a search."""
        length = self.headers.get('Content-Length', '')
        if not (length.isascii() and length.isdigit()) or len(length) > 12 or 'Transfer-Encoding' in self.headers:
            self.close_connection = True
            self._refuse(Refusal(411, 'A request must say its length; send it with Content-Length.'))
            return
        self._unread = int(length)
        self._answer(lambda: self.server.routes.post(self.path, int(length), self._read))
        if self._unread:  # what was refused unread would be taken for the next request
            self.close_connection = True

    def _answer(self, route: Any) -> None:
        try:
            self._check_host()
            answer = route()
        except Refusal as refusal:
            self._refuse(refusal)
        except (OSError, TimeoutError):
            self.close_connection = True  # the visitor is gone, or too slow
        except Exception:
            _logger.exception('%s %s failed', self.command, self.path[:200])
            self._refuse(Refusal(500, 'The server made a mistake; its log says more.'))
        else:
            self._send(answer)

    def _check_host(self) -> None:
        names = self.server.names
        if names is not None and urlsplit(f'//{self.headers.get("Host", "")}').hostname not in names:
            raise Refusal(403, 'This server answers requests to 127.0.0.1 only; --host lets others in.')

    def _read(self) -> bytes:
        """Reads the body, piece by piece, so that a slow sender is told from a lost one."""
        begin, pieces = time.monotonic(), []
        while self._unread:
            piece = self.rfile.read1(min(_PIECE, self._unread))
            if not piece or time.monotonic() - begin > _SENDING:
                raise TimeoutError
            pieces.append(piece)
            self._unread -= len(piece)
        return b''.join(pieces)

    def _send(self, answer: Answer, status: int = 200) -> None:
        known = answer.tag and self.headers.get('If-None-Match') == answer.tag
        body = answer.body
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        self.send_response(304 if known else status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header('Cache-Control', 'no-cache' if answer.tag else 'no-store')
        if answer.tag:
            self.send_header('ETag', answer.tag)
            self.send_header('Vary', 'Accept-Encoding')
        if not known:
            self.send_header('Content-Type', answer.media_type)
            self.send_header('Content-Length', str(size))
            if answer.gzipped:
                self.send_header('Content-Encoding', 'gzip')
        self.end_headers()
        if known or self.command == 'HEAD':
            return
        if isinstance(body, Path):
            with body.open('rb') as file:
                while piece := file.read(_PIECE):
                    self.wfile.write(piece)
        else:
            self.wfile.write(body)

    def _refuse(self, refusal: Refusal) -> None:
        with suppress(OSError):
            self._send(Answer(json.dumps({'error': refusal.sentence}).encode(), 'application/json'), refusal.status)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Says nothing on the terminal."""
        _logger.debug(format, *args)
