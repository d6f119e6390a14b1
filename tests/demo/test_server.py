"""The demo's server: a request can fetch what is listed, or search, and nothing else; it stays small under load."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_site import PREPROCESSING, mean_colours
from PIL import Image

from sfsc_timm.data import load_image
from sfsc_timm.demo.server import DemoServer, Routes, pictures
from sfsc_timm.demo.server.preparing import prepare


def ask(server, method, target, body=None, headers=(), host='127.0.0.1'):
    """Status, headers and body of an answer; the target goes out as it is."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    connection.putheader('Host', host)
    for name, value in dict(headers).items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader('Content-Length', str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def search(server, query, of='abc'):
    status, _, body = ask(server, 'POST', f'/search?of={of}', np.asarray(query, '<f4').tobytes())
    return status, json.loads(body)


def png(*size, colour='red', kind='PNG'):
    file = io.BytesIO()
    Image.new('RGB', size, colour).save(file, kind)
    return file.getvalue()


def test_the_page_and_its_files(server):
    status, headers, body = ask(server, 'GET', '/')
    assert (status, body) == (200, b'<!doctype html><title>page</title>')
    # What threads need in the browser, and nothing from elsewhere.
    assert headers['Cross-Origin-Opener-Policy'] == 'same-origin'
    assert headers['Cross-Origin-Embedder-Policy'] == 'require-corp'
    assert "default-src 'none'" in headers['Content-Security-Policy']
    assert ask(server, 'GET', '/', headers={'If-None-Match': headers['ETag']})[0] == 304
    assert ask(server, 'GET', '/models/0.25.onnx')[2] == b'model'
    assert ask(server, 'GET', '/examples/0')[1]['Content-Type'] == 'image/png'
    assert ask(server, 'GET', '/runtime/ort.wasm')[2] == b'program'
    assert ask(server, 'GET', '/runtime/ort.wasm', headers={'Accept-Encoding': 'gzip'})[2] == b'packed'
    assert json.loads(ask(server, 'GET', '/site.json')[2])['k'] == 5
    status, headers, body = ask(server, 'HEAD', '/main.js')
    assert (status, headers['Content-Length'], body) == (200, '9', b'')


@pytest.mark.parametrize('target', [
    '/secret.txt', '/../secret.txt', '/page/../../secret.txt', '/%2e%2e/secret.txt', '//etc/passwd', '\\secret.txt',
    '/images/../secret.txt', '/images/20', '/images/-1', '/images/1e1', '/images/0.png', '/images/%30',
    '/images/99999999999999999999', '/examples/1', 'http://127.0.0.1/secret.txt', '/runtime/', '/models/1.onnx',
    '/search', '/index.html/', '/main.js%00',
])  # fmt: skip
def test_nothing_else_is_found(server, target):
    status, headers, body = ask(server, 'GET', target)
    assert status == 404
    assert headers['Content-Type'] == 'application/json'
    assert set(json.loads(body)) == {'error'}
    assert b'visitors' not in body


def test_pictures_come_by_number_small_and_without_metadata(server, site):
    exif = Image.Exif()
    exif[0x010E] = 'where I live'
    Image.new('RGB', (900, 600), 'blue').save(site.images[3], exif=exif)
    _, headers, body = ask(server, 'GET', '/images/3')
    shown = Image.open(io.BytesIO(body))
    assert (headers['Content-Type'], shown.size, dict(shown.getexif())) == ('image/jpeg', (256, 171), {})
    site.images[4].unlink()
    assert ask(server, 'GET', '/images/4')[0] == 410


def test_a_search_finds_the_nearest(server, site):
    query = np.random.default_rng(1).normal(size=48).astype(np.float32)
    status, found = search(server, 7 * query)
    scores = site.embeddings @ query / np.linalg.norm(query)
    best = np.argsort(-scores)[:5]
    assert status == 200
    assert [match['item'] for match in found['matches']] == best.tolist()
    np.testing.assert_allclose([match['score'] for match in found['matches']], scores[best], atol=1e-4)
    assert found['matches'][0]['label'] == f'picture {best[0]}'


def test_a_search_by_picture_prepares_it_as_the_server_says(server, site):
    body = site.images[2].read_bytes()
    status, _, content = ask(server, 'POST', '/embed?of=abc&width=1', body)
    query = mean_colours(prepare(load_image(site.images[2]), PREPROCESSING))
    assert status == 200
    assert json.loads(content)['matches'][0]['item'] == int((site.embeddings @ query).argmax())


@pytest.mark.parametrize('target, body, status, sentence', [
    ('/search?of=abc', bytes(4 * 47), 400, 'An embedding must be 48 numbers'),
    ('/search?of=abc', bytes(4 * 48), 400, 'not all of them zero'),
    ('/search?of=abc', np.full(48, np.nan, '<f4').tobytes(), 400, 'finite numbers'),
    ('/search?of=other', bytes(4 * 48), 409, 'another checkpoint'),
    ('/search', bytes(4 * 48), 409, 'another checkpoint'),
    ('/embed?of=abc&width=1', b'no picture', 415, 'none that can be read'),
    ('/embed?of=abc&width=1', png(40, 40, kind='EPS'), 415, 'none that can be read'),
    ('/embed?of=abc&width=1', png(40, 40)[:60], 415, 'damaged'),
    ('/embed?of=abc&width=1', png(4000, 10), 415, 'damaged, or of a kind'),
    ('/embed?of=abc&width=0.5', png(4, 4), 404, 'The server embeds at the widths 1'),
    ('/delete?of=abc', b'', 404, 'nothing of this name'),
])  # fmt: skip
def test_bad_requests_get_a_sentence(server, target, body, status, sentence):
    found, _, content = ask(server, 'POST', target, body)
    assert found == status
    assert sentence in json.loads(content)['error']
    assert b'Traceback' not in content


def test_huge_pictures_are_refused_before_they_are_decoded(server, monkeypatch):
    monkeypatch.setattr(pictures, 'MOST_PIXELS', 10_000)
    status, _, content = ask(server, 'POST', '/embed?of=abc&width=1', png(200, 200))
    assert (status, '200 x 200 pixels' in json.loads(content)['error']) == (413, True)


def test_long_bodies_are_refused_unread(server):
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        connection.sendall(
            b'POST /embed?of=abc&width=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n'
        )
        answer = connection.makefile('rb').read()  # to the end: the connection is closed
    assert answer.startswith(b'HTTP/1.1 413')
    assert b'choose a smaller one' in answer


@pytest.mark.parametrize('length', ['', '-1', '+5', 'x', '1' * 20])
def test_bodies_of_no_known_length_are_refused(server, length):
    status, _, _ = ask(server, 'POST', '/search?of=abc', headers={'Content-Length': length})
    assert status == 411


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:7860', '127.0.0.1.evil.example', ''])
def test_pages_of_elsewhere_cannot_ask(server, host):
    """Their names may be made to point to this machine."""
    assert ask(server, 'GET', '/site.json', host=host)[0] == 403
    assert ask(server, 'GET', '/site.json', host='localhost:1')[0] == 200


def test_a_fault_of_ours_is_a_sentence_too(server, monkeypatch, caplog):
    monkeypatch.setattr(server.routes, 'get', lambda *_, **__: 1 / 0)
    status, _, body = ask(server, 'GET', '/')
    assert (status, json.loads(body)) == (500, {'error': 'The server made a mistake; its log says more.'})
    assert 'ZeroDivisionError' in caplog.text


def test_a_taken_port_is_told(site, server):
    with pytest.raises(OSError, match=r'cannot be listened at.*choose another --port'):
        DemoServer(server.routes, port=server.server_address[1])


def resident():
    """Megabytes that the process holds."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path('/proc/self/statm').is_file(), reason='/proc tells the memory')
def test_a_hundred_clients_at_once_and_memory_stays(server, site):
    """Each searches, sends a picture, and fetches one; all begin together."""
    photograph = png(800, 600, kind='JPEG')
    query = np.ones(48, '<f4').tobytes()
    begin = threading.Barrier(100)

    def visit(i):
        begin.wait()
        return [
            ask(server, 'POST', '/search?of=abc', query)[0],
            ask(server, 'POST', '/embed?of=abc&width=1', photograph)[0],
            ask(server, 'GET', f'/images/{i % 20}')[0],
        ]

    with ThreadPoolExecutor(100) as pool:
        assert all(status == 200 for one in pool.map(visit, range(100)) for status in one)
        before = resident()
        for _ in range(2):
            assert all(status == 200 for one in pool.map(visit, range(100)) for status in one)
    assert resident() - before < 30


def test_silent_visitors_keep_nobody_out(server):
    lines = [socket.create_connection(server.server_address[:2]) for _ in range(50)]
    start = time.monotonic()
    assert search(server, np.ones(48))[0] == 200
    assert time.monotonic() - start < 5
    for line in lines:
        line.close()


def test_thumbnails_are_kept_within_bounds(site, monkeypatch):
    monkeypatch.setattr(pictures, '_KEPT_BYTES', 4000)
    made = []
    thumbnails = pictures.Thumbnails(site.images, lambda *a: made.append(a) or load_image(*a))
    for item in (*range(20), 19, 19):
        thumbnails(item)
    assert len(made) == 20
    assert sum(len(body) for body, _ in thumbnails._kept.values()) <= 4000


def test_a_site_without_its_page_is_told(site):
    (site.page / 'index.html').unlink()
    with pytest.raises(FileNotFoundError, match='holds no page'):
        Routes(site, load_image, {})
