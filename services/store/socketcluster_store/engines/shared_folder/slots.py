"""Small records that are overwritten in place, so that nothing needs a new block.

Each has two slots with a CRC and a number that rises, and the older one is written: whatever becomes of the process or
the machine, one of them is whole.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from zlib import crc32

from socketcluster_runtime.secrets.private_files import private

SLOT_BYTES = 128

_SEQUENCE = struct.Struct("=Q")
_CRC = struct.Struct("=I")


def pack(sequence: int, body: bytes) -> bytes:
    """Return the bytes of a slot."""
    content = _SEQUENCE.pack(sequence) + body
    return (content + _CRC.pack(crc32(content))).ljust(SLOT_BYTES, b"\0")


def newest(raw: bytes, body: struct.Struct, magic: bytes) -> tuple[int, tuple[object, ...]] | None:
    """Return the sequence and the fields of the newer of two slots that are whole."""
    found: list[tuple[int, tuple[object, ...]]] = []
    length = _SEQUENCE.size + body.size
    for start in (0, SLOT_BYTES):
        content = raw[start : start + length]
        crc = raw[start + length : start + length + _CRC.size]
        if len(crc) == _CRC.size and _CRC.pack(crc32(content)) == crc:
            first, *rest = body.unpack_from(content, _SEQUENCE.size)
            if first == magic:
                found.append((_SEQUENCE.unpack_from(content)[0], tuple(rest)))
    return max(found, default=None)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and force it to the disk, not yet its name.

    Raises:
        OSError: it cannot be written, or the disk failed.
    """
    with open(path, "wb", opener=private) as file:  # who writes by the system call may write a part, on a full disk
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
