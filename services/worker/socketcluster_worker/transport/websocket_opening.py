"""The opening handshake of a WebSocket (RFC 6455, section 4.2), by the library's part for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from socketcluster_wire.deflate import Agreement, DeflateOptions

NOT_OPENED = (("Cache-Control", "no-store"),)
"""Header fields of an answer that opens no WebSocket."""

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
    path: str,
    raw_headers: Sequence[tuple[bytes, bytes]],
    extra_headers: Sequence[tuple[str, str]],
) -> Opening:
    """Answer a request to open a WebSocket.

    Args:
        deflate: compression, for clients that offer it.
        subprotocol: chooses one of those that the client offers, if it offers any.
        path: what is asked for.
        raw_headers: the request's header fields, as they were sent.
        extra_headers: more of the answer's, if it opens one.
    """
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
