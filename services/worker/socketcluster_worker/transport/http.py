"""HTTP/1.1: uvicorn's protocol, taught to begin in the middle and to leave WebSockets to us."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from socketcluster_wire.request_head import Target
from socketcluster_worker.connection import Handshake
from socketcluster_worker.endpoints import Endpoints
from socketcluster_worker.transport.exchange import Cycle, Flow
from socketcluster_worker.transport.forward import EXTENSION
from socketcluster_worker.transport.websocket import end_for_all

MAX_HEAD_BYTES = 65_536
"""The largest head of a request; a balancer accepts less of the first one."""
HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take, from its first byte or the connection's beginning on."""
HEADER_OVERHEAD = 4
"""What a header field has beside its name and value: a colon, a space, and the line's end."""


BODY_WINDOW = 15.0
"""Seconds of which each must bring ``BODY_LEAST`` bytes of a body, or its end, while somebody reads it."""
BODY_LEAST = 7_500
"""Bytes that a body brings in ``BODY_WINDOW`` at least."""
SEND_TICK = 2.0
"""Seconds between two looks at whether a client takes its answer."""
SEND_TICKS = 10
"""So many looks in a row at which it had taken nothing, and its connection is aborted."""
LINGER = 2.0
"""Seconds for which the rest of a refused request is read and dropped, lest it reset the answer away."""
PIECES_A_TURN = 64
"""Pieces, each of one request at most, that one connection may have parsed before others get their turn."""

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")


class _RefusedError(Exception):
    """A request is not served, and its connection closed; ``args`` are the status, the reason, and header fields."""


_TOO_LARGE = _RefusedError(431, "The request's head is too large.")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from, if its socket does not tell."""

    client: tuple[str, int] | None
    secure: bool
    forwarded: bool = False
    """Was it passed on by another worker?"""


class HTTPProtocol(HttpToolsProtocol):
    """One client's connection, until it becomes a WebSocket.

    What is read is parsed in pieces of one request at most, and no further while that waits for its answer: a client
    that sends thousands at once has one at a time.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: what the user's apps keep from their start on; uvicorn's.
        endpoints: where WebSockets go.
        origin: who the client is.
        received: what was read from the connection by somebody else.
    """

    cycle: Cycle
    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        endpoints: Endpoints,
        origin: Origin,
        received: bytes = b"",
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._endpoints = endpoints
        self._origin = origin
        self._received = received
        self._unread = bytearray()  # received, and not yet parsed
        self._tail = b""  # the end of what was parsed last, if an empty line may begin in it
        self._going_on: asyncio.Handle | None = None
        self._refused = False
        self._half_closed = False
        self._unparsed_bytes = 0  # parsed, and not yet part of a head or body that is complete
        self._head_bytes = 0
        self._in_head = True
        self._upgraded_from: list[tuple[bytes, bytes]] | None = None  # the fields of a request read again
        self._complete = True  # has the whole request arrived?
        self._served = False  # is it given to the app?
        self._body_left = 0  # what is left of a body whose length was announced
        self._body_bytes = 0
        self._body_limit = 0
        self._body_seen = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._stuck = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with what was received before."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        if self._origin.client is not None:
            self.client = self._origin.client
        if self._origin.secure:
            self.scheme = "https"
        received, self._received = self._received, b""
        if received:
            self.data_received(received)
        else:
            self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timers()
        self._unread.clear()
        end_for_all(self.transport)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has been asked: a client may end its own direction and wait (RFC 9112, section 9.6)."""
        self._half_closed = True
        if self._refused or not self._complete or not (self._waits or self._unread):
            return False
        if self._waits and self.cycle.ends_with_eof:
            self.cycle.eof = True
            self.cycle.message_event.set()
        return True

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._refused:
            return
        self._unread += data
        if self._going_on is None:
            self._go_on()
        else:
            self._block()

    def pause_writing(self) -> None:
        """Look from now on whether the client takes anything."""
        super().pause_writing()
        self._watch_sending()

    def on_response_complete(self) -> None:
        """Go on with the next request, in a turn of its own."""
        super().on_response_complete()
        self._watch_sending()
        if self.transport.is_closing():
            self._unread.clear()
        elif self._unread:
            if self._going_on is None:
                self._going_on = self.loop.call_soon(self._go_on)
        elif self._half_closed:
            self.transport.close()

    # Parsing.

    @property
    def _waits(self) -> bool:
        """Has the last request no whole answer yet?"""
        return self.cycle is not None and not self.cycle.response_complete

    def _block(self) -> None:
        self.flow.pause_reading()
        self.flow.blocked = True

    def _go_on(self) -> None:
        """Parse what was received, until a request waits for its answer, or others are to have their turn."""
        self._going_on = None
        self._unset_keepalive_if_required()
        pieces = PIECES_A_TURN
        while self._unread and not self._refused and not self.transport.is_closing():
            if self._complete and self._waits:
                self._block()
                return
            if not pieces:
                self._block()
                self._going_on = self.loop.call_soon(self._go_on)
                return
            pieces -= 1
            if not self._parse(self._piece()):
                return
        self.flow.blocked = False
        if self.transport.is_closing() or self._refused:
            return
        if self._half_closed and not self._waits:
            self.transport.close()
            return
        if not (self._waits and len(self.cycle.body)):
            self.flow.resume_reading()
        self._time_head()

    def _piece(self) -> bytes:
        """Return what is to be parsed next: at most to the end of a head or of a body."""
        unread = self._unread
        size = len(unread)
        if self._body_left:
            size = min(size, self._body_left)
            self._tail = b""
        else:
            seam = _EMPTY_LINE.search(self._tail + bytes(unread[:2])) if self._tail else None
            if seam is not None:
                size = seam.end() - len(self._tail)
            elif (found := _EMPTY_LINE.search(unread)) is not None:
                size = found.end()
            ended = seam is not None or found is not None
            self._tail = b"" if ended else (self._tail + bytes(unread[-2:]))[-2:]
        piece = bytes(unread[:size])
        del unread[:size]
        return piece

    def _parse(self, data: bytes) -> bool:
        """Parse a piece; return whether this protocol goes on.  uvicorn loses what is behind a request to upgrade."""
        self._unparsed_bytes += len(data)
        try:
            if self._unparsed_bytes > MAX_HEAD_BYTES + len(data):
                raise _TOO_LARGE
            self.parser.feed_data(data)
        except _RefusedError as refusal:
            self._refuse(*refusal.args)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _RefusedError):
                self._refuse(*error.__context__.args)
            else:
                self._refuse(400, "Invalid HTTP request received.")
        return not self._refused

    def on_message_begin(self) -> None:
        """Begin to count and to time a new head."""
        self._in_head, self._head_bytes, self._unparsed_bytes = True, 0, 0
        self._complete, self._served, self._body_left, self._body_bytes = False, False, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or one that trails a body."""
        self._count(len(name) + len(value) + HEADER_OVERHEAD)
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to serve a request, unless it is to become a WebSocket; its body may yet have to come."""
        self._in_head, self._unparsed_bytes = False, 0
        self._stop_head_timer()
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        if self._upgraded_from is not None:
            self.headers[:], self._upgraded_from = self._upgraded_from, None
        target = self._check_head(version)
        if self.parser.should_upgrade():
            if self._should_upgrade() and self._announced() != b"0":
                raise _RefusedError(400, "A request for a WebSocket has no body.")
            return  # what comes next is up to _upgrade
        raw_path = target.path.encode("ascii")
        self.scope["path"] = unquote(target.path)
        self.scope["raw_path"] = raw_path
        self.scope["query_string"] = target.query.encode("ascii")
        if self._origin.forwarded:
            self.scope["extensions"] = {EXTENSION: {}}
        self._expect_body()
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self.cycle.ends_with_eof = self.scope["method"] == "GET" and self._endpoints.polls(self.scope["path"])
        self._served = True
        self._start_asgi_task(self.cycle, self.app)

    def _check_head(self, version: str) -> Target:
        """Return what is asked for; raise if the request's head says nothing that can be served."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0") or (hosts and not _HOST.fullmatch(hosts[0])):
            raise _RefusedError(400, "A request names one host (RFC 9112, section 3.2).")
        if self.scope["method"] == "CONNECT":
            raise _RefusedError(501, "This server is no proxy.")
        target = Target.parse(self.url.decode("latin-1"))
        if not target.path.startswith("/") or not self.url.isascii():
            raise _RefusedError(400, "A request's target is a path, or a URL.")
        if target.authority is not None:
            if not target.authority or not _HOST.fullmatch(target.authority.encode("ascii")):
                raise _RefusedError(400, "A request's URL names a host.")
            self.headers[:] = [field for field in self.headers if field[0] != b"host"]
            self.headers.insert(0, (b"host", target.authority.encode("ascii")))
        return target

    def _announced(self) -> bytes:
        """Return a body's length as the head tells it; ``b""`` if it comes in chunks."""
        fields = dict(self.headers)
        return (
            b"" if b"transfer-encoding" in fields else fields.get(b"content-length", b"0").strip().lstrip(b"0") or b"0"
        )

    def _expect_body(self) -> None:
        """Look at how long a body will be, and begin to watch how it comes."""
        self._body_limit = self._endpoints.max_body(self.scope["path"])
        length = self._announced()
        if length:
            self._body_left = int(length)
            if self._body_left > self._body_limit:
                raise _RefusedError(413, "The request's body is too large.")
        if length != b"0":
            self._body_seen = 0
            self._body_timer = self.loop.call_later(BODY_WINDOW, self._look_at_body)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        self._body_left = max(0, self._body_left - len(body))
        if self._body_bytes > self._body_limit:
            raise _RefusedError(413, "The request's body is too large.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._unparsed_bytes, self._body_left, self._complete = 0, 0, True
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        if not self.parser.should_upgrade():
            super().on_message_complete()

    # Upgrades.

    def _should_upgrade(self) -> bool:
        """Is a WebSocket asked for, and nothing else? (RFC 6455, section 4.2.1)"""
        asked = [value.strip().lower() for name, value in self.headers if name == b"upgrade"]
        return asked == [b"websocket"]

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the endpoint that the path names, or to the user's application."""
        target = self.url.decode("latin-1")
        handshake = Handshake.parse(target, self.headers, self.client, secure=self.scheme == "https")
        if not self._endpoints.serves(handshake.path):
            asked = Target.parse(target)
            self.url = (asked.path + ("?" + asked.query if asked.query else "")).encode("ascii")
            self.scope["headers"] = self.headers
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        may_be_elsewhere = "sid" in handshake.query and not self._origin.forwarded
        if may_be_elsewhere and self._endpoints.forward(self.transport, handshake, self.url, self.headers):
            return
        websocket = self._endpoints.upgrade(self.transport, handshake, self.headers)
        if websocket is not None:
            self.transport.set_protocol(websocket)

    def _upgrade(self, behind: bytes) -> bool:
        """Change the protocol, as the request asked; ``behind`` was read behind its head."""
        self._unread[:0] = behind
        if not self._should_upgrade():
            self._read_again()
            return not self._refused
        if self.scope["method"] != "GET" or self.scope["http_version"] != "1.1":
            self._refuse(400, "A WebSocket begins with a GET request of HTTP/1.1.")
            return False
        versions = [value for name, value in self.headers if name == b"sec-websocket-version"]
        if versions != [b"13"]:
            fields = "sec-websocket-version: 13\r\nupgrade: websocket\r\n"
            self._refuse(426 if versions else 400, "This server speaks version 13 of WebSocket.", fields)
            return False
        self._stop_timers()
        self.handle_websocket_upgrade()
        rest = bytes(self._unread)
        self._unread.clear()
        if not self.transport.is_closing():
            self.flow.blocked = False
            protocol = self.transport.get_protocol()
            if isinstance(protocol, asyncio.Protocol) and protocol is not self:
                if self.flow.read_paused and not isinstance(protocol, HTTPProtocol):
                    self.flow.resume_reading()
                if rest:
                    protocol.data_received(rest)
        return False

    def _read_again(self) -> None:
        """Serve a request for another protocol than WebSocket, such as h2c, as if it did not ask for that.

        The parser takes what comes behind such a head for the other protocol, though the request may have a body.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._upgraded_from = list(self.headers)
        lines = [b"%s %s HTTP/%s" % (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())]
        lines += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self._parse(b"\r\n".join((*lines, b"", b"")))

    # Limits.

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _TOO_LARGE

    def _refuse(self, status: int, reason: str, fields: str = "") -> None:
        """Answer a request that is not served, unless an answer is under way, and close the connection."""
        self._endpoints.refused.add(reason)
        self._refused = True
        self._unread.clear()
        self._stop_timers()
        self._unset_keepalive_if_required()
        started = self._waits and self.cycle.response_started
        if self._waits:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.is_closing():
            return
        if started:
            self.transport.abort()  # what follows would be taken for its rest
            return
        if self._complete or not self._served or self._waits:  # else it has an answer, though not all of it was read
            body = f"{reason}\n".encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            head += f"content-length: {len(body)}\r\ncache-control: no-store\r\n{fields}connection: close\r\n\r\n"
            self.transport.write(head.encode("ascii") + body)
        self.transport.write_eof()
        self.flow.blocked = False
        self.flow.resume_reading()
        self._head_timer = self.loop.call_later(LINGER, self.transport.abort)

    def _time_head(self) -> None:
        """Run the clock while a head is not complete; most come in one piece, and need none."""
        answered = self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None
        if not self._in_head and not answered:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _look_at_body(self) -> None:
        """End a request whose body hardly comes."""
        seen, self._body_seen = self._body_seen, self._body_bytes
        if self._body_bytes - seen < BODY_LEAST and not self.flow.read_paused:
            self._body_timer = None
            self._refuse(408, "The request's body did not arrive in time.")
        else:
            self._body_timer = self.loop.call_later(BODY_WINDOW, self._look_at_body)

    def _watch_sending(self) -> None:
        """Begin to look whether the client takes what was written, if something of it waits here."""
        if self._send_timer is None and self.transport.get_write_buffer_size():
            self._unsent, self._stuck = self.transport.get_write_buffer_size(), 0
            self._send_timer = self.loop.call_later(SEND_TICK, self._look_at_sending)

    def _look_at_sending(self) -> None:
        self._send_timer = None
        size = self.transport.get_write_buffer_size()
        if not size:
            return
        self._stuck = self._stuck + 1 if size >= self._unsent else 0
        self._unsent = size
        if self._stuck >= SEND_TICKS:
            self.transport.abort()
        else:
            self._send_timer = self.loop.call_later(SEND_TICK, self._look_at_sending)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_timers(self) -> None:
        self._stop_head_timer()
        for timer in (self._body_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._body_timer = self._send_timer = None
