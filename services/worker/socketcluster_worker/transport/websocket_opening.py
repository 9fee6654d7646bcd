"""The opening handshake of a WebSocket (RFC 6455, section 4.2).

What nearly every client sends is answered here: one SHA-1, and an agreement on compression that was made before for the
same offer. The others, and all that is to be refused, go to the ``websockets`` library, which takes ten times as long.
"""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from typing import Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from socketcluster_wire.deflate import Agreement, DeflateOptions

NOT_OPENED = (("Cache-Control", "no-store"),)
"""Header fields of an answer that opens no WebSocket."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_CONNECTIONS = frozenset(("upgrade", "keep-alive, upgrade", "keep-alive,upgrade"))
"""What nearly all clients' fields ``Connection`` say, in lower case."""
_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
_MAX_CACHED = 256
"""Characters of an offer that is worth remembering: those of clients are shorter."""


class Asked(Protocol):
    """A request, as far as it matters here."""

    @property
    def path(self) -> str:
        """What is asked for."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields, names in lower case; those of one name joined."""


_library_log = logging.getLogger("websockets.server")
_library_log.setLevel(logging.CRITICAL)  # its failed handshakes are the clients' doing


@dataclass(frozen=True, slots=True)
class Opening:
    """What a request to open a WebSocket is answered."""

    answer: bytes
    """The whole of it."""
    is_open: bool
    """Does the connection carry frames from now on?"""
    agreement: Agreement | None = None
    """How messages are compressed, if they are."""


def answer_opening(
    deflate: DeflateOptions | None,
    subprotocol: Callable[[Sequence[str]], str | None],
    request: Asked,
    raw_headers: Sequence[tuple[bytes, bytes]] | None,
    extra_headers: Sequence[tuple[str, str]],
) -> Opening:
    """Answer a request to open a WebSocket.

    Args:
        deflate: compression, for clients that offer it.
        subprotocol: chooses one of those that the client offers, if it offers any.
        request: the request.
        raw_headers: its header fields, as they were sent, if they are at hand.
        extra_headers: more of the answer's, if it opens one.
    """
    fields = request.headers
    opening = _answer_at_once(deflate, fields, extra_headers)
    if opening is not None:
        return opening
    if raw_headers is None:
        raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    return _answer_by_library(deflate, subprotocol, request.path, raw_headers, extra_headers)


def is_as_usual(fields: Mapping[str, str]) -> bool:
    """Do these header fields ask for a WebSocket as nearly every client does, and of no choice of subprotocols?"""
    return (
        _KEY.fullmatch(fields.get("sec-websocket-key", "")) is not None
        and fields.get("connection", "").lower() in _CONNECTIONS
        and fields.get("upgrade", "").lower() == "websocket"
        and fields.get("sec-websocket-version") == "13"
        and "sec-websocket-protocol" not in fields
        and "," not in fields.get("origin", "")
    )


def _answer_at_once(
    deflate: DeflateOptions | None, fields: Mapping[str, str], extra_headers: Sequence[tuple[str, str]]
) -> Opening | None:
    """Answer what is as usual; ``None``: something is not, or there is a choice to be made."""
    if not is_as_usual(fields):
        return None
    accept = b64encode(sha1(fields["sec-websocket-key"].encode("ascii") + _GUID, usedforsecurity=False).digest())
    answer = [_SWITCHING, accept.decode("ascii")]
    agreement = None
    offered = fields.get("sec-websocket-extensions")
    if offered is not None and deflate is not None:
        agree = _agree if len(offered) <= _MAX_CACHED else _agree.__wrapped__
        agreed = agree(deflate, offered)
        if agreed is None:
            return None
        text, agreement = agreed
        answer.append(text)
    for name, value in extra_headers:
        answer += "\r\n", name, ": ", value
    answer.append("\r\n\r\n")
    return Opening("".join(answer).encode("latin-1"), True, agreement)


@lru_cache(maxsize=64)
def _agree(deflate: DeflateOptions, offered: str) -> tuple[str, Agreement | None] | None:
    """Return the field that answers an offer of extensions, and what it says; ``None``: the offer is malformed."""
    server = ServerProtocol(extensions=[deflate.factory()], logger=_library_log)
    headers = Headers()
    headers["Sec-WebSocket-Extensions"] = offered
    try:
        text, extensions = server.process_extensions(headers)
    except InvalidHandshake:
        return None
    agreements = [Agreement.of(one) for one in extensions if isinstance(one, PerMessageDeflate)]
    return "" if text is None else f"\r\nSec-WebSocket-Extensions: {text}", agreements[0] if agreements else None


def _answer_by_library(
    deflate: DeflateOptions | None,
    subprotocol: Callable[[Sequence[str]], str | None],
    path: str,
    raw_headers: Sequence[tuple[bytes, bytes]],
    extra_headers: Sequence[tuple[str, str]],
) -> Opening:
    headers = Headers()
    for raw_name, raw_value in raw_headers:
        headers[raw_name.decode("latin-1")] = raw_value.decode("latin-1")
    server = ServerProtocol(
        extensions=None if deflate is None else [deflate.factory()],
        select_subprotocol=lambda _, offered: cast(Subprotocol, subprotocol(offered)) if offered else None,
        logger=_library_log,
    )
    response = server.accept(Request(path, headers))
    is_open = response.status_code == 101
    for name, value in extra_headers if is_open else NOT_OPENED:
        response.headers[name] = value
    server.send_response(response)
    agreements = [Agreement.of(one) for one in server.extensions if isinstance(one, PerMessageDeflate)]
    return Opening(b"".join(server.data_to_send()), is_open, agreements[0] if agreements else None)
