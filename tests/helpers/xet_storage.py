"""What the Hub knows of Xet storage, read from the folder that hf_xet's own simulation writes (casUrl local://...).

Xet stores files in chunks; its index ("shards") maps a file's Merkle hash to them and, in an extension, to its SHA-256.
The simulation is not documented, so this is pinned to the release that it was tried with.
"""

from __future__ import annotations

import struct
from pathlib import Path

TRIED_WITH = '1.8.'  # hf_xet
_ENTRY = 48  # bytes of every record
_VERIFIED, _WITH_SHA256 = 0x80000000, 0x40000000


def find(folder: Path, sha256: str) -> tuple[str, int] | None:
    """Merkle hash and size of the file with a SHA-256; None if it is not stored."""
    for shard in (folder / 'xet' / 'xorbs' / 'shards').glob('*.mdb'):
        content, place = shard.read_bytes(), _ENTRY
        while content[place : place + 32] != b'\xff' * 32:
            name = content[place : place + 32]
            flags, segments = struct.unpack_from('<II', content, place + 32)
            place += _ENTRY
            size = sum(struct.unpack_from('<I', content, place + _ENTRY * i + 36)[0] for i in range(segments))
            place += _ENTRY * segments * (2 if flags & _VERIFIED else 1)
            if flags & _WITH_SHA256:
                digest = content[place : place + 32]
                if sha256 in (digest.hex(), _printed(digest)):
                    return _printed(name), size
                place += _ENTRY
    return None


def _printed(digest: bytes) -> str:
    """A hash as Xet prints it: four little-endian numbers of 64 bits."""
    return ''.join(f'{number:016x}' for number in struct.unpack('<4Q', digest))
