"""The emoji designs that the `emoji` benchmark is built from, and how their packages are read."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VARIATION_SELECTOR = 0xFE0F
_LEFT_OUT = (
    range(0x1F3FB, 0x1F400),  # skin tones
    range(0x1F1E6, 0x1F200),  # regional indicators: national flags
    range(0xE0020, 0xE0080),  # tags: flags of England, Scotland, Wales
    range(0xE000, 0xF900),  # private use
)


@dataclass(frozen=True)
class Design:
    """One design of the emoji: a camera of the benchmark.

    Attributes:
        name: The camera's name and folder.
        package: npm package, pinned to `version`.
        version: Its version.
        integrity: Its sha512, in npm's form (`npm pack --json` prints it).
        author: Who drew it.
        licence: SPDX identifier of the pictures' licence.
        url: Where they come from.
    """

    name: str
    package: str
    version: str
    integrity: str
    author: str
    licence: str
    url: str


DESIGNS = (
    Design(
        'noto', '@iconify-json/noto', '1.2.9',
        'sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==',
        'Google', 'Apache-2.0', 'https://github.com/googlefonts/noto-emoji',
    ),
    Design(
        'twemoji', '@iconify-json/twemoji', '1.2.5',
        'sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==',
        'Twitter, jdecked', 'CC-BY-4.0', 'https://github.com/jdecked/twemoji',
    ),
    Design(
        'openmoji', '@iconify-json/openmoji', '1.2.29',
        'sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==',
        'OpenMoji', 'CC-BY-SA-4.0', 'https://github.com/hfg-gmuend/openmoji',
    ),
    Design(
        'emojitwo', '@iconify-json/emojione', '1.2.3',
        'sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==',
        'Emoji One, EmojiTwo', 'CC-BY-4.0', 'https://github.com/EmojiTwo/emojitwo',
    ),
    Design(
        'fluent-flat', '@iconify-json/fluent-emoji-flat', '1.2.6',
        'sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==',
        'Microsoft', 'MIT', 'https://github.com/microsoft/fluentui-emoji',
    ),
    Design(
        'fluent-mono', '@iconify-json/fluent-emoji-high-contrast', '1.2.6',
        'sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==',
        'Microsoft', 'MIT', 'https://github.com/microsoft/fluentui-emoji',
    ),
    Design(
        'fluent-3d', '@lobehub/fluent-emoji-3d', '1.1.0',
        'sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==',
        'Microsoft, packaged by LobeHub', 'MIT', 'https://github.com/lobehub/fluent-emoji',
    ),
)  # fmt: skip
"""The cameras: seven designs by five vendors."""


def normalise(sequence: str) -> str | None:
    """Returns hexadecimal code points joined by '-' in one spelling, or None for a sequence that is left out.

    The emoji variation selector FE0F goes, since the sets differ in where they write it. Left out are:

    - skin tones, which are colours of one drawing and would be thousands of near copies;
    - flags of countries and regions: some are alike to the pixel (Norway, Svalbard, Bouvet Island; France and five
      of its territories), so that no one could tell the identities apart, all designs draw the same flag, and
      Microsoft has none. Flags that are drawings (rainbow, pirate, chequered) stay;
    - private use code points, which mean something in one set alone.
    """
    codes = [code for code in (int(part, 16) for part in sequence.split('-')) if code != _VARIATION_SELECTOR]
    if any(code in codes_left_out for code in codes for codes_left_out in _LEFT_OUT):
        return None
    return '-'.join(f'{code:x}' for code in codes)


def read_designs(packages: Mapping[str, Path]) -> dict[str, dict[str, bytes]]:
    """Reads the pictures of each design from its package.

    Args:
        packages: The tarball of each design, by the design's name.

    Returns:
        For each design, the SVG or WebP file of each sequence. Where one picture stands for several sequences (a
        family for all families, say) only the first of them has it, so that an image has one identity.
    """
    files = {name: _unpack(tarball) for name, tarball in packages.items()}
    # Emoji One names its pictures as the others do but has no list of code points, so it borrows theirs.
    names: dict[str, str] = {}
    for content in files.values():
        for sequence, name in json.loads(content.get('chars.json', b'{}')).items():
            names.setdefault(name, sequence)
    return {name: _first_of_each(_pictures(content, names)) for name, content in files.items()}


def _unpack(tarball: Path) -> dict[str, bytes]:
    """Reads the files of an npm package, by their names without folders, into memory."""
    with tarfile.open(tarball) as archive:
        members = [member for member in archive if member.isfile() and member.name.endswith(('.json', '.webp'))]
        readers = {member.name.rsplit('/', 1)[-1]: archive.extractfile(member) for member in members}
        return {name: reader.read() for name, reader in readers.items() if reader is not None}


def _pictures(content: dict[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    if 'icons.json' not in content:
        stems = {name.removesuffix('.webp'): picture for name, picture in content.items() if name.endswith('.webp')}
        return {key: stems[stem] for stem in sorted(stems) if (key := normalise(stem))}
    icons = json.loads(content['icons.json'])
    listed = json.loads(content.get('chars.json', b'{}')) or {names[n]: n for n in icons['icons'] if n in names}
    pictures = {}
    for sequence, name in sorted(listed.items()):
        key = normalise(sequence)
        if key and name in icons['icons']:
            icon = icons['icons'][name]
            width, height = (icon.get(side, icons.get(side, 16)) for side in ('width', 'height'))
            body = icon['body'].replace('currentColor', '#000')
            pictures[key] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="0 0 {width} {height}">{body}</svg>'
            ).encode()
    return pictures


def _first_of_each(pictures: dict[str, bytes]) -> dict[str, bytes]:
    first: dict[bytes, str] = {}
    for key in sorted(pictures, key=lambda key: (key.count('-'), key)):
        first.setdefault(pictures[key], key)
    return {key: picture for picture, key in first.items()}
