"""The head of a connection's first request, read just far enough to choose a worker by it.

Nothing here validates for the worker, which reads the same bytes again. The grammar is that of RFC 9112: a line may end
with a bare LF, and up to 16 empty lines in front of the request line are skipped (sections 2.2 and 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import parse_qsl, unquote

from socketcluster_wire.cookies import values_of
from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError

MAX_HEAD_BYTES = 16 * 1024
"""The default limit of a head's size."""

_MAX_EMPTY_BYTES = 32
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_EMPTY_LINES = rb"(?:\r?\n){0,16}"
_REQUEST_LINE = re.compile(_EMPTY_LINES + rb"(" + _TOKEN + rb"{1,32}) ([^\x00-\x20\x7f]+) HTTP/1\.[0-9]\r?(?=\n)")
_BEGINNING = re.compile(
    _EMPTY_LINES + rb"\r?(?:" + _TOKEN + rb"{1,32}(?: (?:[^\x00-\x20\x7f]+(?: [HTP/.0-9]{0,8}\r?)?)?)?)?"
)
_END = re.compile(rb"\n\r?\n")
_SID = re.compile(r"(?:.*&)?sid=([^&]*)")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for (RFC 9112, section 3.2), as every service reads it."""

    path: str
    """As sent, without the fragment, which no client should send; ``*`` and ``host:port`` are their own path."""
    query: str
    """As sent."""
    authority: str | None
    """The host and port of the absolute form, which stands for the header ``Host`` then."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a request's target, of whatever form."""
        text = text.partition("#")[0]
        path, _, query = text.partition("?")
        found = None if path.startswith("/") else _ABSOLUTE.match(path)
        if found is None:
            return cls(path, query, None)
        return cls(path[found.end() :] or "/", query, found[1])

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Return the parameters, decoded: all values of each name, in their order; ``""`` where there is none."""
        found: dict[str, list[str]] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True):
            found.setdefault(name, []).append(value)
        return {name: tuple(values) for name, values in found.items()}


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The first request of a connection."""

    method: str
    """As sent, usually in capitals."""
    target: str
    """As sent: path and query, or a whole URL."""
    fields: bytes
    """The header fields, from the LF of the request line to the LF of the last field."""

    @classmethod
    def parse(cls, data: bytes | bytearray, limit: int = MAX_HEAD_BYTES) -> RequestHead | None:
        """Read the head that ``data`` begins with; ``None`` if it is not complete.

        Raises:
            MalformedHeadError: whatever follows, this is no request of HTTP/1.
            HeadTooLargeError: the head is larger than ``limit`` bytes.
        """
        line = _REQUEST_LINE.match(data)
        if line is None:
            if not _BEGINNING.fullmatch(data):
                raise MalformedHeadError("not a request of HTTP/1")
            end = None
        else:
            end = _END.search(data, line.end())
        if (len(data) if end is None else end.end()) > limit or (end is None and len(data) == limit):
            raise HeadTooLargeError(f"the request's head is larger than {limit} bytes")
        if line is None or end is None:
            return None
        method, target = line.groups()
        return cls(method.decode("ascii"), target.decode("latin-1"), bytes(data[line.end() : end.start() + 1]))

    @staticmethod
    def may_end(data: bytes | bytearray, known: int) -> bool:
        """Can the head be complete now, if the first ``known`` bytes of ``data`` were not all of it?

        This looks at the other bytes alone, and spares reading a head again whose pieces are tiny.
        """
        return _END.search(data, max(0, known - 2)) is not None

    @property
    def path(self) -> str:
        """The target's path, as sent; ``*`` and ``host:port`` are their own path."""
        return Target.parse(self.target).path

    @property
    def sid(self) -> str | None:
        """The last ``sid`` of the target's query, as workers read it."""
        if "sid=" not in self.target:
            return None
        found = _SID.match(Target.parse(self.target).query)
        return None if found is None else unquote(found[1])

    def headers(self) -> dict[str, str]:
        """Return all header fields, names in lower case; of several of one name, joined (cookies by semicolons)."""
        found: dict[str, str] = {}
        for line in self.fields.decode("latin-1").split("\n")[1:-1]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t\r")
            separator = "; " if name == "cookie" else ", "
            found[name] = found[name] + separator + value if name in found else value
        return found

    def header(self, name: str) -> str | None:
        """Return the first value of the header ``name`` (in lower case), without the white space around it."""
        found = _field(name).search(self.fields)
        return None if found is None else found[1].decode("latin-1").strip(" \t")

    def cookie(self, name: str) -> str | None:
        """Return the value of the first cookie ``name``, without the quotes around it."""
        cookies = self.header("cookie")
        return None if cookies is None else next(values_of(cookies, name), None)


def has_request_line(data: bytes | bytearray) -> bool | None:
    """Does ``data`` begin with the line that a request begins with? ``None`` if that line is not complete."""
    line = data.lstrip(b"\r\n")
    if b"\n" not in line:
        return None if len(data) - len(line) <= _MAX_EMPTY_BYTES else False
    return _REQUEST_LINE.match(data) is not None


@lru_cache(maxsize=64)
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\n" + re.escape(name.encode("latin-1")) + rb":([^\r\n]*)", re.IGNORECASE)
