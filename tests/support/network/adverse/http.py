"""What an adverse proxy reads of the bytes that pass it, requests and WebSocket frames, and what it answers itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

END_OF_HEAD = b"\r\n\r\n"
PORTAL = "<!doctype html><title>Welcome</title><p>Log in to use this network.</p>"
"""The page of a captive portal."""


@dataclass(frozen=True)
class Request:
    """The head of a request.

    Attributes:
        method: in capitals.
        target: the path with its query.
        headers: by their names in small letters; of several with one name, the last.
    """

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, head: bytes) -> Request:
        """Read a head, the empty line at its end included."""
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        return cls(method.upper(), target, {name.strip().lower(): value.strip() for name, _, value in fields})

    @property
    def query(self) -> dict[str, str]:
        """The parameters; of several with one name, the first."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def length(self) -> int:
        """Bytes of the body; one of unknown length is none that these clients send."""
        return int(self.headers.get("content-length", 0))

    @property
    def kind(self) -> str:
        """``open``, ``poll`` or ``post`` of the polling transport, ``websocket``, or ``other``."""
        if self.headers.get("upgrade", "").lower() == "websocket":
            return "websocket"
        if self.query.get("transport") != "polling":
            return "other"
        if self.method == "POST":
            return "post"
        return "poll" if "sid" in self.query else "open"

    def answer(self, status: str, body: str = PORTAL, *, cors: bool = True, **headers: str) -> bytes:
        """Return an answer after which the connection is closed.

        Args:
            status: code and reason.
            body: HTML.
            cors: may pages of other origins read it?
            headers: further ones; underscores stand for hyphens.
        """
        fields = {"Content-Type": "text/html", "Content-Length": str(len(body.encode())), "Connection": "close"}
        if cors and "origin" in self.headers:
            fields["Access-Control-Allow-Origin"] = self.headers["origin"]
            fields["Access-Control-Allow-Credentials"] = "true"
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*head, "", body]).encode()


class Frames:
    """Counts the frames of one direction of a WebSocket, and lets the first of them pass, or all.

    Attributes:
        begun: how many frames have begun.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._head = b""
        self._left = 0

    def feed(self, data: bytes, most: int | None = None) -> bytes:
        """Return the part of the bytes that belongs to the first ``most`` frames."""
        passing = bytearray()
        while data:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
            else:
                self._head, data = self._head + data[:1], data[1:]
                length = _frame_length(self._head)
                if length is None:
                    continue
                part, self._head, self._left = self._head, b"", length
                self.begun += 1
            if most is None or self.begun <= most:
                passing += part
        return bytes(passing)


def _frame_length(head: bytes) -> int | None:
    """Return how many bytes follow the head of a frame; ``None``: the head is not whole."""
    if len(head) < 2:
        return None
    short = head[1] & 0x7F
    extended = {126: 2, 127: 8}.get(short, 0)
    masked = 4 if head[1] & 0x80 else 0
    if len(head) < 2 + extended + masked:
        return None
    return int.from_bytes(head[2 : 2 + extended]) if extended else short
