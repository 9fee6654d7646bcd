"""HTTP/1.1: uvicorn's protocol, taught to begin in the middle and to leave WebSockets to us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from time import monotonic
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from socketcluster_runtime.trusted_proxies import ForgottenProxy, TrustedProxies
from socketcluster_wire import http_response
from socketcluster_wire.request_head import Target
from socketcluster_worker import fairness
from socketcluster_worker.connection import Handshake
from socketcluster_worker.errors import HTTPRequestError
from socketcluster_worker.transport.http.forward import EXTENSION
from socketcluster_worker.transport.http.framing import (
    MAX_HEAD_BYTES,
    Pieces,
    RequestLine,
    announced_length,
    check_head,
)
from socketcluster_worker.transport.http.mounted_websocket import MountedWebSocket
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.request_cycle import Cycle, Flow
from socketcluster_worker.transport.http.routes import Routes
from socketcluster_worker.transport.http.time_limits import TimeLimits
from socketcluster_worker.transport.tcp import end_for_all

HEADER_OVERHEAD = 4
"""What a header field has beside its name and value: a colon, a space, and the line's end."""


class HTTPProtocol(HttpToolsProtocol):
    """One client's connection, until it becomes a WebSocket.

    What is read is parsed in pieces of one request at most, and no further while that waits for its answer: a client
    that sends thousands at once has one at a time.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        router: where WebSockets go.
        proxies: whose header fields say who the client is.
        origin: where the connection comes from.
        received: what was read from the connection by somebody else.
    """

    cycle: Cycle
    flow: Flow
    _clocks: TimeLimits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        router: Routes,
        proxies: TrustedProxies,
        origin: Origin,
        received: bytes = b"",
    ) -> None:
        super().__init__(config, server_state, {})
        self._router = router
        self._proxies = proxies
        self._proxy: tuple[tuple[str, int], bool] | None = None  # one that is believed, and whether it came by TLS
        self._origin = origin
        self._received = received
        self._pieces = Pieces()  # received, and not yet parsed
        self._line = RequestLine()
        self._going_on = False  # is there a turn in which parsing goes on?
        self._refused = False
        self._half_closed = False
        self._leaving = False
        self._unparsed_bytes = 0  # parsed, and not yet part of a head or body that is complete
        self._head_bytes = 0
        self._in_head = True
        self._upgraded_from: list[tuple[bytes, bytes]] | None = None  # the fields of a request read again
        self._complete = True  # has the whole request arrived?
        self._served = False  # is it given to the app?
        self._body_bytes = 0
        self._body_limit = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with what was received before."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._clocks = TimeLimits(transport, self.flow, self._slow_body, self._router.body_window)
        if self._origin.client is not None:
            self.client = self._origin.client
        if self._origin.secure:
            self.scheme = "https"
        if self.client is not None and not self._origin.final and self._proxies.tell(self.client[0]):
            self._proxy = self.client, self.scheme == "https"
        received, self._received = self._received, b""
        if received:
            self.data_received(received)
        else:
            self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._clocks.stop()
        self._pieces.unread.clear()
        end_for_all(self.transport)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has been asked: a client may end its own direction and wait (RFC 9112, section 9.6)."""
        self._half_closed = True
        if self._refused or not self._complete or not (self._waits or self._pieces.unread):
            return False
        if self._waits and self.cycle.ends_with_eof:
            self.cycle.eof = True
            self.cycle.message_event.set()
        return True

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._refused:
            return
        self._pieces.unread += data
        if self._going_on:
            self._block()
        else:
            self._go_on()

    def pause_writing(self) -> None:
        """Look from now on whether the client takes anything."""
        super().pause_writing()
        self._clocks.watch_sending()

    def on_response_complete(self) -> None:
        """Go on with the next request, in a turn of its own."""
        super().on_response_complete()
        self._clocks.watch_sending()
        if self.transport.is_closing():
            self._pieces.unread.clear()
        elif self._pieces.unread:
            if not self._going_on:
                self._going_on = True
                self.loop.call_soon(self._go_on)
        elif self._half_closed:
            self.transport.close()

    def leave(self) -> None:
        """End with the request that is under way, or at once, so that the next one comes by another connection."""
        self._leaving = True
        if self._complete and not self._waits and not self._pieces.unread:
            self.transport.close()
        elif self._waits:
            self.cycle.is_last = True
            self.cycle.keep_alive = False
            if self.cycle.ends_with_eof:
                self._router.release_poll(self.scope["path"], self.url.decode("latin-1"))

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
        self._going_on = False
        self._unset_keepalive_if_required()
        end = monotonic() + fairness.SLICE
        while self._pieces.unread and not self._refused and not self.transport.is_closing():
            if self._complete and self._waits:
                self._block()
                return
            if not self._parse(self._pieces.next()):
                return
            if self._pieces.unread and monotonic() >= end:
                self._block()
                self._going_on = True
                fairness.later(self._go_on)
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

    def _parse(self, data: bytes) -> bool:
        """Parse a piece; return whether this protocol goes on.  uvicorn loses what is behind a request to upgrade."""
        self._unparsed_bytes += len(data)
        try:
            if self._unparsed_bytes > MAX_HEAD_BYTES + len(data):
                raise _too_large()
            self._line.take(data)
            self.parser.feed_data(data)
        except HTTPRequestError as error:
            self._refuse(*error.args)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HTTPRequestError):
                self._refuse(*error.__context__.args)
            else:
                self._refuse(400, "Invalid HTTP request received.")
        return not self._refused

    def on_message_begin(self) -> None:
        """Begin to count and to time a new head."""
        self._in_head, self._head_bytes, self._unparsed_bytes = True, 0, 0
        self._complete, self._served, self._pieces.body_left, self._body_bytes = False, False, 0, 0
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
        self._clocks.end_head()
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        if self._upgraded_from is not None:
            self.headers[:], self._upgraded_from = self._upgraded_from, None
        target = check_head(self.scope["method"], self.url, version, self.headers)
        if self._proxy is not None:
            self._ask(*self._proxy, target)
        elif self._proxies.forgotten is not None:
            self._look_for_proxy(self._proxies.forgotten, target.path)
        path, host = unquote(target.path), dict(self.headers).get(b"host", b"").decode("ascii")
        if not self._router.is_for_us(host, path, secure=self.scheme == "https"):
            raise HTTPRequestError(400, "This server does not go by that name (option allowed_hosts).")
        if self.parser.should_upgrade():
            if self._should_upgrade() and announced_length(self.headers) != 0:
                raise HTTPRequestError(400, "A request for a WebSocket has no body.")
            return  # what comes next is up to _upgrade
        raw_path = target.path.encode("ascii")
        self.scope["path"] = path
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
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self._is_placed_by_request,
            on_response=self.on_response_complete,
        )
        self.cycle.is_last = self._leaving
        self.cycle.ends_with_eof = self.scope["method"] == "GET" and self._router.polls(self.scope["path"])
        self._served = True
        self._start_asgi_task(self.cycle, self.app)

    @property
    def _is_placed_by_request(self) -> bool:
        """Is a balancer to see each request? A proxy has those of many clients on one connection, if it may."""
        return self._proxy is not None and self._origin.placed

    def _look_for_proxy(self, forgotten: ForgottenProxy, path: str) -> None:
        """Look whether a proxy should be believed that is not; many ask for the health without one."""
        if not self._origin.final and path != self._router.health_path:
            forgotten.see(self.headers, self.client)

    def _ask(self, proxy: tuple[str, int], came_by_tls: bool, target: Target) -> None:
        """Take what a proxy in front says: whose this request is, how it came there, and which host it is for."""
        told = self._proxies.read(self.headers, proxy)
        secure = came_by_tls if told.secure is None else told.secure
        self.client = self.scope["client"] = told.client
        self.scheme = self.scope["scheme"] = "https" if secure else "http"
        if told.host is not None:
            self.headers[:] = [field for field in self.headers if field[0] != b"host"]
            self.headers.insert(0, (b"host", told.host.encode("ascii")))
            self.url = _origin_form(target)

    def _expect_body(self) -> None:
        """Look at how long a body will be, and begin to watch how it comes."""
        self._body_limit = self._router.max_body(self.scope["path"])
        length = announced_length(self.headers)
        if length is not None:
            if length > self._body_limit:
                raise HTTPRequestError(413, "The request's body is too large.")
            self._pieces.body_left = length
        if length != 0:
            self._clocks.begin_body()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        self._pieces.body_left = max(0, self._pieces.body_left - len(body))
        self._clocks.add_body(len(body))
        if self._body_bytes > self._body_limit:
            raise HTTPRequestError(413, "The request's body is too large.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._unparsed_bytes, self._pieces.body_left, self._complete = 0, 0, True
        self._clocks.end_body()
        self._line.expect()
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
        if not self._router.serves(handshake.path):
            self.url = _origin_form(Target.parse(target))
            self.scope["headers"] = self.headers
            make = partial(MountedWebSocket, client=self.client, secure=self.scheme == "https")
            self.ws_protocol_class = make  # type: ignore[assignment]
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        may_be_elsewhere = handshake.parameter("sid") is not None and not self._origin.forwarded
        if may_be_elsewhere and self._router.forward(self.transport, handshake, self.url, self.headers):
            return
        websocket = self._router.upgrade(self.transport, handshake, self.headers)
        if websocket is not None:
            self.transport.set_protocol(websocket)

    def _upgrade(self, behind: bytes) -> bool:
        """Change the protocol, as the request asked; ``behind`` was read behind its head."""
        self._pieces.unread[:0] = behind
        if not self._should_upgrade():
            self._read_again()
            return not self._refused
        if self.scope["method"] != "GET" or self.scope["http_version"] != "1.1":
            self._refuse(400, "A WebSocket begins with a GET request of HTTP/1.1.")
            return False
        versions = [value for name, value in self.headers if name == b"sec-websocket-version"]
        if versions != [b"13"]:
            fields = [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]
            self._refuse(426 if versions else 400, "This server speaks version 13 of WebSocket.", fields)
            return False
        self._clocks.stop()
        self.handle_websocket_upgrade()
        rest = bytes(self._pieces.unread)
        self._pieces.unread.clear()
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
            raise _too_large()

    def _refuse(self, status: int, reason: str, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Answer a request that is not served, unless an answer is under way, and close the connection."""
        self._router.refused.add(reason)
        self._refused = True
        self._pieces.unread.clear()
        self._clocks.stop()
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
            fields = [("Cache-Control", "no-store"), *fields]
            self.transport.write(http_response.closing(status, "text/plain; charset=utf-8", body, fields=fields))
        self.transport.write_eof()
        self.flow.blocked = False
        self.flow.resume_reading()
        self._clocks.linger()

    def _time_head(self) -> None:
        """Run the clock while a head is not complete; most come in one piece, and need none."""
        answered = self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None
        if not self._in_head and not answered:
            self._clocks.end_head()
        else:
            self._clocks.begin_head()

    def _slow_body(self) -> None:
        self._refuse(408, "The request's body did not arrive in time.")


def _origin_form(target: Target) -> bytes:
    return (target.path + ("?" + target.query if target.query else "")).encode("ascii")


def _too_large() -> HTTPRequestError:
    return HTTPRequestError(431, "The request's head is too large.")
