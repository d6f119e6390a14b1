"""The page in a real Chromium: what it computes, what it says, and that a keyboard or a phone is enough for it."""

from __future__ import annotations

import base64
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.chromium import chromium, wait
from helpers.pictures import make_pictures, scene

from sfsc_timm.data import Sample, batches, load_image
from sfsc_timm.demo import cache_folder, find_runtime, make_site
from sfsc_timm.demo.server import DemoServer, Routes
from sfsc_timm.evaluation import CompatibilityMatrix, embed
from sfsc_timm.retrieval import Gallery, GalleryInfo, Preparation

pytest.importorskip('selenium')  # before anything is loaded or exported
_logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.browser, pytest.mark.slow]

EMBED = """
const [text, name, done] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
embedFile(new File([bytes], name)).then(
  ({ embedding, ...rest }) => done({ ...rest, embedding: Array.from(embedding) }), (e) => done({ error: e.message }));
"""
DROP = """
const [text, name] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name));
const event = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
document.getElementById('drop').dispatchEvent(event);
"""
MATRIX = {'widths': (0.25, 1.0), 'mAP': np.array([[60.0, 55.0], [61, 70]]), 'mINP': np.zeros((2, 2)), 'cmc': {}}


class Noted(Routes):
    """Notes what visitors send."""

    def __init__(self, *args):
        super().__init__(*args)
        self.sent = []

    def post(self, target, length, read):
        self.sent.append((target.partition('?')[0], length))
        return super().post(target, length, read)


@pytest.fixture(scope='module')
def checkpoint():
    from sfsc_timm.checkpoints import load_checkpoint_model

    pytest.importorskip('onnxruntime')
    return load_checkpoint_model('sfsc_resnet18d')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp('pictures'))


@pytest.fixture(scope='module')
def site(checkpoint, files, tmp_path_factory):
    """The pictures themselves as a gallery of width 1.0; some of them as examples."""
    root = tmp_path_factory.mktemp('site')
    transform = checkpoint.preprocessing.transform()
    images = (batch.images for batch in batches([Sample(file, 0) for file in files], transform))
    embeddings = embed(checkpoint.model, images, [1.0])[1.0]
    info = GalleryInfo('x', 1.0, embeddings.shape[1], checkpoint.compatibility, space_id=checkpoint.space)
    gallery = Gallery.create(root / 'gallery', info)
    Preparation(checkpoint.preprocessing).claim(gallery)
    gallery.append([str(file) for file in files], embeddings)
    cache = cache_folder()
    try:
        runtime = find_runtime(cache, Path(os.environ['ORT_DIR']) if 'ORT_DIR' in os.environ else None)
    except (FileNotFoundError, ConnectionError) as error:
        pytest.skip(str(error))
    return make_site(
        checkpoint, gallery, browser=0.25, server=[1.0], examples=files[:4], matrix=CompatibilityMatrix(**MATRIX),
        runtime=runtime, cache=cache,
    )  # fmt: skip


@pytest.fixture(scope='module')
def server(site):
    running = DemoServer(Noted(site, load_image), port=0)
    thread = threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.05})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    camera = ('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')
    with chromium(tmp_path_factory.mktemp('profile'), *camera) as running:
        yield running


@pytest.fixture
def page(browser, server):
    """The page, loaded anew and ready."""
    browser.get(server.url)
    wait(browser, 'document.body.dataset.ready')
    browser.get_log('browser')
    server.routes.sent.clear()
    return browser


def text(page, name):
    return page.find_element('id', name).text


def drop(page, path):
    page.execute_script(DROP, base64.b64encode(path.read_bytes()).decode(), path.name)


def shown(page, turn=1):
    wait(page, f"document.body.dataset.turn === '{turn}'")


def refused(page, path):
    """What the page says of a file."""
    drop(page, path)
    wait(page, "!document.getElementById('error').hidden")
    return text(page, 'error')


def test_the_browser_embeds_as_python_does(page, checkpoint, files):
    transform, small = checkpoint.preprocessing.transform(), checkpoint.model.extract(0.25).eval()
    cosines = {}
    for path in files:
        found = page.execute_async_script(EMBED, base64.b64encode(path.read_bytes()).decode(), path.name)
        assert 'error' not in found, (path.name, found)
        with torch.no_grad():
            wanted = small(transform(load_image(path))[None])[0]
        cosines[path.name] = float(torch.cosine_similarity(wanted, torch.tensor(found['embedding']), 0))
    _logger.info('%s', sorted((round(value, 6), name) for name, value in cosines.items()))
    assert len(cosines) >= 50
    assert min(cosines.values()) >= 0.999, min(cosines.items(), key=lambda item: item[1])


def test_only_the_embedding_travels_until_a_switch_is_on(page, server, files):
    assert page.execute_script('return crossOriginIsolated')  # threads can be used
    drop(page, files[24])
    shown(page)
    assert server.routes.sent == [('/search', 1024)]
    assert '1,024 bytes, the embedding' in text(page, 'columns')
    assert files[24].stem in text(page, 'summary')  # which finds itself first, across widths
    switch = page.find_element('id', 'width-1')
    assert 'the picture itself is sent' in switch.find_element('xpath', '..').text
    switch.click()
    shown(page, 2)
    assert sorted(server.routes.sent[1:]) == [('/embed', files[24].stat().st_size), ('/search', 1024)]
    assert len(page.find_elements('css selector', '#columns article')) == 2
    assert 'matches are found by width 1, the server, too' in text(page, 'summary')
    wait(page, "[...document.querySelectorAll('.matches img')].every((i) => i.complete && i.naturalWidth)")
    assert not page.get_log('browser')


def test_bad_files_get_a_sentence(page, tmp_path):
    for name, content, sentence in (
        ('text.png', b'no picture', 'no picture that this browser can read'),
        ('empty.jpg', b'', 'no picture that this browser can read'),
        ('cut.jpg', b'\xff\xd8\xff\xe0\x00\x10JFIF', 'no picture that this browser can read'),
    ):
        (tmp_path / name).write_bytes(content)
        assert sentence in refused(page, tmp_path / name)
        assert text(page, 'summary') == 'No matches.'


def test_huge_and_elongated_pictures_get_a_sentence(page, tmp_path):
    scene(8000, 20).save(tmp_path / 'long.png')
    scene(9, 9).save(tmp_path / 'huge.png')
    content = bytearray((tmp_path / 'huge.png').read_bytes())
    content[16:24] = (20_000).to_bytes(4, 'big') * 2
    (tmp_path / 'huge.png').write_bytes(content)
    assert '20000 x 20000 pixels, more than 50 million' in refused(page, tmp_path / 'huge.png')
    drop(page, tmp_path / 'long.png')
    shown(page, 2)
    assert 'more than 200 times the shorter' in text(page, 'error')


def test_another_checkpoint_and_a_server_that_is_gone_get_a_sentence(page, server, site, files, monkeypatch):
    monkeypatch.setitem(server.routes._config, 'compatibility', 'other')
    assert 'another checkpoint than the server; load it again' in refused(page, files[0])
    page.execute_cdp_cmd('Network.enable', {})
    gone = {'offline': True, 'latency': 0, 'downloadThroughput': 0, 'uploadThroughput': 0}
    back = {**gone, 'offline': False, 'downloadThroughput': -1, 'uploadThroughput': -1}
    page.execute_cdp_cmd('Network.emulateNetworkConditions', gone)
    drop(page, files[0])
    shown(page, 2)
    assert 'The server cannot be reached' in text(page, 'error')
    page.execute_cdp_cmd('Network.emulateNetworkConditions', back)


def test_the_keyboard_is_enough(page):
    keys = pytest.importorskip('selenium.webdriver.common.keys').Keys
    chains = pytest.importorskip('selenium.webdriver').ActionChains
    order = []
    for _ in range(12):
        chains(page).send_keys(keys.TAB).perform()  # a file field would take keys for paths
        element = page.switch_to.active_element
        order.append(element.get_attribute('id') or element.get_attribute('class') or element.tag_name)
    assert order[:3] == ['skip', 'file', 'camera']
    assert order.count('button') == 4  # the examples
    assert {'width-1', 'scroll'} <= set(order)
    page.find_elements('css selector', '#examples button')[1].send_keys(keys.ENTER)
    shown(page)
    page.find_element('id', 'width-1').send_keys(keys.SPACE)
    shown(page, 2)
    assert len(page.find_elements('css selector', '#columns article')) == 2


def test_what_screen_readers_are_told(page):
    page.find_elements('css selector', '#examples button')[0].click()
    shown(page)
    tree = page.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
    named = {}
    for node in tree:
        named.setdefault(node.get('role', {}).get('value'), []).append(node.get('name', {}).get('value', ''))
    for role in ('button', 'image', 'checkbox', 'article'):
        assert named[role], role
        assert all(named[role]), (role, named[role])
    assert len(named['status']) == 2
    assert any('picture itself is sent' in name for name in named['checkbox'])
    assert {'Your picture', 'Matches'} <= set(named['region'])
    assert page.execute_script('return document.documentElement.lang') == 'en'
    fields = "[...document.querySelectorAll('input')]"
    assert page.execute_script(f'return {fields}.length && {fields}.every((field) => field.labels.length)')
    heads = page.execute_script("return [...document.querySelectorAll('#matrix th[scope]')].map((h) => h.scope)")
    assert sorted(heads) == ['col', 'col', 'row', 'row']


def test_a_picture_from_the_camera(page, server):
    page.find_element('id', 'camera').click()
    wait(page, "!document.getElementById('camera-take').disabled")
    page.find_element('id', 'camera-take').click()
    shown(page)
    assert 'camera.png' in text(page, 'preview-text')
    assert [path for path, _ in server.routes.sent] == ['/search']
    assert page.execute_script("return document.getElementById('camera-video').srcObject === null")


def test_a_phones_width_is_enough(page):
    screen = {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True}
    page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    try:
        page.find_element('id', 'width-1').click()
        page.find_elements('css selector', '#examples button')[0].click()
        shown(page)
        assert page.execute_script('return document.documentElement.scrollWidth') == 360
        buttons = "[...document.querySelectorAll('main button')]"
        assert page.execute_script(f'return {buttons}.every((button) => button.offsetHeight >= 44)')  # for fingers
    finally:
        page.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
