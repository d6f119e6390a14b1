"""What a request can do: fetch a file of a fixed list, a picture by its number, or search."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from .embedding import Embed, open_model
from .files import list_assets
from .nearest import Nearest, Read, read_embedding
from .pictures import MOST_BYTES, Decode, Thumbnails, decode_sent
from .preparing import image_mode, prepare
from .refusal import Refusal
from .site import Site

__all__ = ['Answer', 'Routes']

_PATIENCE = 60.0  # seconds that a request waits for its turn
_BUSY = 'The server is busy; try again in a minute.'


@dataclass(frozen=True)
class Answer:
    """What goes back to the visitor.

    Attributes:
        body: Bytes, or a file that is sent piece by piece.
        media_type: Of the body.
        tag: Tells this content from any other, for browsers that have it already; '' where it is not kept.
        gzipped: Whether the body is compressed.
    """

    body: bytes | Path
    media_type: str
    tag: str = ''
    gzipped: bool = False


class Routes:
    """Answers requests.

    Args:
        site: What there is.
        decode: Decodes pictures, see `Decode`.
        embedders: Widths that run on the server; None opens those that the site names.
    """

    def __init__(self, site: Site, decode: Decode, embedders: Mapping[float, Embed] | None = None) -> None:
        self._site, self._decode = site, decode
        self._config = dict(site.config)
        preprocessing = self._config['preprocessing']
        if embedders is None:
            widths = [one['width'] for one in self._config['server']]
            flip, size = self._config['flip'], site.embeddings.shape[1]
            embedders = {width: open_model(site.models[width], preprocessing, size, flip=flip) for width in widths}
        self._embedders = {f'{width:g}': embed for width, embed in embedders.items()}
        browser = self._config['browser']['width']
        self._assets = list_assets(site.page, site.runtime, {browser: site.models[browser]}, site.examples)
        self._nearest = Nearest(site.embeddings)
        self._thumbnails = Thumbnails(site.images, decode)
        # Turns, so that memory and threads do not grow with the visitors.
        self._searching, self._embedding = threading.Semaphore(4), threading.Semaphore(2)

    def get(self, target: str, *, gzip: bool = False) -> Answer:
        """Answers a GET.

        Args:
            target: Path and query as the request names them.
            gzip: Whether the visitor takes compressed bodies.

        Raises:
            Refusal: There is nothing of that name.
        """
        path = urlsplit(target).path
        if path == '/site.json':
            return Answer(json.dumps(self._config).encode(), 'application/json')
        if path in self._assets:
            asset = self._assets[path]
            chosen = asset.gzipped if gzip and asset.gzipped else asset.file
            return Answer(chosen, asset.media_type, asset.tag, gzipped=chosen != asset.file)
        if found := re.fullmatch(r'/images/(\d{1,9})', path):
            return Answer(*self._thumbnails(int(found[1])))
        raise Refusal(404, 'There is nothing of this name here.')

    def post(self, target: str, length: int, read: Read) -> Answer:
        """Answers a POST: a search.

        Args:
            target: Path and query as the request names them.
            length: Bytes of the body, as announced.
            read: Reads them.

        Raises:
            Refusal: No such search, or a body that is none of its kind.
        """
        url = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if asked.get('of') != self._config['compatibility']:
            raise Refusal(409, 'This page belongs to another checkpoint than the server; load it again.')
        if url.path == '/search':
            found = self._search(read_embedding(length, read, self._nearest.embed_dim))
        elif url.path == '/embed':
            found = self._embed(asked.get('width', ''), length, read)
        else:
            raise Refusal(404, 'There is nothing of this name here.')
        return Answer(json.dumps(found).encode(), 'application/json')

    def _search(self, query: NDArray[np.float32]) -> dict[str, Any]:
        with _turn(self._searching):
            start = time.perf_counter()
            items, scores = self._nearest.search(query, self._config['k'])
            spent = 1000 * (time.perf_counter() - start)
        matches = [
            {'item': item, 'score': round(score, 4), 'label': self._site.labels[item]}
            for item, score in zip(items, scores, strict=True)
        ]
        return {'matches': matches, 'search_ms': spent}

    def _embed(self, width: str, length: int, read: Read) -> dict[str, Any]:
        """Embeds a picture that was sent, and searches."""
        if width not in self._embedders:
            known = ', '.join(self._embedders) or 'none'
            raise Refusal(404, f'The server embeds at the widths {known}; choose one of them.')
        preprocessing = self._config['preprocessing']
        with _turn(self._embedding):  # before the body is read: no more pictures than turns are held in memory
            if length > MOST_BYTES:
                raise Refusal(413, f'A picture may have {MOST_BYTES} bytes, got {length}; choose a smaller one.')
            body = read()
            start = time.perf_counter()
            image = decode_sent(body, image_mode(preprocessing), self._decode)
            images = prepare(image, preprocessing)
            prepared = time.perf_counter()
            query = self._embedders[width](images)
            times = {'prepare_ms': 1000 * (prepared - start), 'embed_ms': 1000 * (time.perf_counter() - prepared)}
        return {**self._search(query), **times}


@contextmanager
def _turn(semaphore: threading.Semaphore) -> Iterator[None]:
    """Waits for a turn, not for ever.

    Raises:
        Refusal: None came.
    """
    if not semaphore.acquire(timeout=_PATIENCE):
        raise Refusal(503, _BUSY)
    try:
        yield
    finally:
        semaphore.release()
