"""The client's end of a WebSocket: its request, its frames, and those that come back.

Frames of a client are masked; the mask is zero, which is as legal as any other and costs nothing. What comes is not
checked as a client of untrusted servers would have to.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from secrets import token_bytes

from socketcluster.bench.plan import Target

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_CONTINUATION = 0
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NO_MASK = bytes(4)


def make_key() -> str:
    """Return a new Sec-WebSocket-Key."""
    return base64.b64encode(token_bytes(16)).decode()


def accept_of(key: str) -> str:
    """Return the Sec-WebSocket-Accept that a server answers a key with."""
    return base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()  # noqa: S324  # the protocol's


def request(target: Target, key: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the request for a WebSocket; ``headers`` may take the place of Host and others."""
    fields = {
        "host": ("Host", target.authority),
        "user-agent": ("User-Agent", "socketcluster-bench"),
        "upgrade": ("Upgrade", "websocket"),
        "connection": ("Connection", "Upgrade"),
        "sec-websocket-key": ("Sec-WebSocket-Key", key),
        "sec-websocket-version": ("Sec-WebSocket-Version", "13"),
    }
    for name, value in headers:
        fields[name.lower()] = (name, value)
    lines = [f"GET {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.values())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole message as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + _NO_MASK + payload


class Frames:
    """Takes a server's bytes apart."""

    __slots__ = ("_buffer", "_opcode", "_parts")

    def __init__(self) -> None:
        self._buffer = b""
        self._opcode = 0
        self._parts: list[bytes] = []

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each message, and each control frame, that is whole now: its opcode and payload."""
        buffer = self._buffer + data if self._buffer else data
        position, end = 0, len(buffer)
        while end - position >= 2:
            first, length = buffer[position], buffer[position + 1] & 0x7F
            start = position + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                if end - start < wide:
                    break
                length = int.from_bytes(buffer[start : start + wide], "big")
                start += wide
            if end - start < length:
                break
            payload = buffer[start : start + length]
            position = start + length
            opcode = first & 0x0F
            if first & 0x80 and opcode:
                yield opcode, payload
            elif (whole := self._join(opcode, payload, final=bool(first & 0x80))) is not None:
                yield whole
        self._buffer = buffer[position:]

    def _join(self, opcode: int, payload: bytes, *, final: bool) -> tuple[int, bytes] | None:
        if opcode != _CONTINUATION:
            self._opcode, self._parts = opcode, []
        self._parts.append(payload)
        return (self._opcode, b"".join(self._parts)) if final else None
