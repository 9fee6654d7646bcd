"""What a request's head must say, and how it says where its body ends (RFC 9112)."""

from __future__ import annotations

import re

from socketcluster_wire.request_head import Target, has_request_line
from socketcluster_worker.errors import HTTPRequestError

MAX_HEAD_BYTES = 65_536
"""The largest head of a request; a balancer accepts less of the first one."""
PIECE = 8192
"""The largest piece of what may be a head, or small chunks of a body: those take a microsecond each."""

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")

Fields = list[tuple[bytes, bytes]]


class Pieces:
    """What was received and not parsed; it is parsed in pieces that hold one request at most.

    Attributes:
        body_left: what is left of a body whose length was announced.
    """

    def __init__(self) -> None:
        self.unread = bytearray()
        self.body_left = 0
        self._tail = b""  # the end of what was parsed last, if an empty line may begin in it

    def next(self) -> bytes:
        """Take what is to be parsed next: at most to the end of a head or of a body."""
        unread = self.unread
        if self.body_left:
            size = min(len(unread), self.body_left)
            self._tail = b""
        else:
            size = min(len(unread), PIECE)
            seam = _EMPTY_LINE.search(self._tail + bytes(unread[:2])) if self._tail else None
            if seam is not None:
                size = seam.end() - len(self._tail)
            elif (found := _EMPTY_LINE.search(unread, 0, size)) is not None:
                size = found.end()
            ended = seam is not None or found is not None
            self._tail = b"" if ended else (self._tail + bytes(unread[max(0, size - 2) : size]))[-2:]
        piece = bytes(unread[:size])
        del unread[:size]
        return piece


class RequestLine:
    """Reads the line that a request begins with as strictly as balancers do, which the parser does not."""

    def __init__(self) -> None:
        self._begun: bytearray | None = bytearray()  # None once it was read

    def expect(self) -> None:
        """Wait for the next one."""
        self._begun = bytearray()

    def take(self, data: bytes) -> None:
        """Take what is parsed next.

        Raises:
            HTTPRequestError: that is no request of HTTP/1.
        """
        if self._begun is None:
            return
        self._begun += data
        if b"\n" in data:
            found = has_request_line(self._begun)
            if found is False:
                raise HTTPRequestError(400, "This is not a request of HTTP/1.")
            if found:
                self._begun = None


def check_head(method: str, url: bytes, version: str, headers: Fields) -> Target:
    """Return what is asked for; its host becomes the only ``host`` field.

    Raises:
        HTTPRequestError: the request's head says nothing that can be served.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0") or (hosts and not _HOST.fullmatch(hosts[0])):
        raise HTTPRequestError(400, "A request names one host (RFC 9112, section 3.2).")
    if method == "CONNECT":
        raise HTTPRequestError(501, "This server is no proxy.")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and version == "1.0":
        raise HTTPRequestError(400, "A request of HTTP/1.0 has no chunks (RFC 9112, section 6.1).")
    if codings and codings != [b"chunked"]:
        raise HTTPRequestError(501, "This server decodes chunked bodies, and no others.")
    target = Target.parse(url.decode("latin-1"))
    if not target.path.startswith("/") or not url.isascii():
        raise HTTPRequestError(400, "A request's target is a path, or a URL.")
    if target.authority is not None:
        if not target.authority or not _HOST.fullmatch(target.authority.encode("ascii")):
            raise HTTPRequestError(400, "A request's URL names a host.")
        headers[:] = [field for field in headers if field[0] != b"host"]
        headers.insert(0, (b"host", target.authority.encode("ascii")))
    return target


def announced_length(headers: Fields) -> int | None:
    """Return a body's length as a head tells it; ``None`` if it comes in chunks."""
    fields = dict(headers)
    return None if b"transfer-encoding" in fields else int(fields.get(b"content-length") or b"0")
