"""Requests of Engine.IO sessions that another worker has: they are passed on to it, and its answers back.

Each goes by a connection of its own to the other worker's HTTP port, behind a signed PROXY header that names the client
and says that the request was forwarded: a worker never forwards such a one, so no request goes in a circle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httptools
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.sockets.relay import Relay
from socketcluster_wire import proxy_protocol
from socketcluster_worker.connection import Handshake
from socketcluster_worker.ids import ID_LENGTH
from socketcluster_worker.transport.engineio.polling import NO_STORE
from socketcluster_worker.transport.http.request_body import Lost, disconnected, read_body
from socketcluster_worker.transport.tcp import end_for_all

log = logging.get_logger(__name__)

EXTENSION = "socketcluster.forwarded"
"""The ASGI extension of a request that another worker forwarded to this one."""
CONNECT_TIMEOUT = 2.0
"""Seconds that another worker has to accept a connection."""
SIGN_TIMEOUT = 2.0
"""Seconds that it has then to begin an answer, an interim one perhaps: for a worker that hangs the kernel accepts."""
READ_BYTES = 65_536
"""Bytes of an answer that are read at a time; the stream holds back twice as many."""
SIGN_WANTED = (b"expect", b"100-continue")
"""Asks for an interim answer at once: that of a poll may take its time (RFC 9110, section 10.1.1)."""

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Header fields that are about one connection (RFC 9110, section 7.6.1)."""
_NOT_PASSED_ON = _HOP_BY_HOP | {b"content-length", b"expect"}
_NOT_PASSED_BACK = _HOP_BY_HOP | {b"date"}

Address = tuple[str, int]
Headers = Iterable[tuple[bytes, bytes]]


class Forwarder:
    """Passes requests on to the workers whose sessions they name.

    Args:
        worker_id: this worker's.
        find: returns the host and port of a worker's HTTP, if it is known.
        key: what PROXY headers are signed with.
        limit: how many requests may be under way at a time, open WebSockets included.
        max_body_bytes: the size of the largest body.
        answer_timeout: seconds that another worker has to answer a polling request.
    """

    def __init__(
        self,
        worker_id: str,
        find: Callable[[str], Address | None],
        key: bytes,
        *,
        limit: int,
        max_body_bytes: int,
        answer_timeout: float,
    ) -> None:
        self._worker_id = worker_id
        self._find = find
        self._key = key
        self._limit = limit
        self._max_body_bytes = max_body_bytes
        self._answer_timeout = answer_timeout
        self._polls = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._relays: set[Relay] = set()
        self._too_many = Throttle(
            lambda count: log.warning(
                "too many requests are forwarded, others are refused", refused=count, setting="max_forwards"
            )
        )
        self._unreachable = Throttle(
            lambda count: log.warning("requests could not be forwarded to their worker", requests=count)
        )

    @property
    def under_way(self) -> int:
        """How many requests are being forwarded, open WebSockets included."""
        return self._polls + len(self._connecting) + len(self._relays)

    def owner_of(self, handshake: Handshake) -> Address | None:
        """Return where the worker is that a request is for; ``None`` if it is this one, or not known."""
        sid = handshake.parameter("sid") or ""
        worker_id = sid[:ID_LENGTH]
        if len(sid) <= ID_LENGTH or worker_id == self._worker_id:
            return None
        address = self._find(worker_id)
        if address is not None and self.under_way >= self._limit:
            self._too_many.add()
            return None
        return address

    async def poll(self, scope: Scope, receive: Receive, send: Send, owner: Address, client: Address | None) -> bool:
        """Pass a polling request on (ASGI 3); return false if its worker gave no answer, and nothing was sent."""
        self._polls += 1
        try:
            return await self._poll(scope, receive, send, owner, client)
        finally:
            self._polls -= 1

    async def _poll(self, scope: Scope, receive: Receive, send: Send, owner: Address, client: Address | None) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        announced = next((value for name, value in headers if name == b"content-length"), b"")
        body = await read_body(receive, self._max_body_bytes, announced.decode("latin-1"))
        if body is Lost.TOO_LARGE:
            await Response(status_code=413, headers=NO_STORE | {"connection": "close"})(scope, receive, send)
            return True
        if isinstance(body, Lost):  # the client went away
            return True
        target = scope["raw_path"] + b"?" + scope["query_string"]
        passed_on = [(name, value) for name, value in headers if name not in _NOT_PASSED_ON]
        passed_on += [(b"connection", b"close"), (b"content-length", b"%d" % len(body)), SIGN_WANTED]
        head = _head(scope["method"].encode("ascii"), target, passed_on)
        gone = asyncio.ensure_future(disconnected(receive))
        answered = asyncio.ensure_future(
            self._ask(owner, self._header(client, scope["scheme"] == "https") + head + body, send)
        )
        try:
            await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
            return not answered.done() or answered.result()
        finally:
            gone.cancel()
            answered.cancel()

    async def _ask(self, owner: Address, request: bytes, send: Send) -> bool:
        """Send a request, and its answer on; return false if there is none."""
        answer = _Answer()
        parser = answer.parser
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(*owner, limit=READ_BYTES)
            writer.write(request)
            end = asyncio.get_running_loop().time() + self._answer_timeout
            async with asyncio.timeout(min(SIGN_TIMEOUT, self._answer_timeout)) as patience:
                while not answer.complete:
                    data = await reader.read(READ_BYTES)
                    if not data:
                        raise ConnectionResetError("the answer ends too early")
                    patience.reschedule(end)
                    parser.feed_data(data)
                    await answer.pass_on(send)
        except (OSError, httptools.HttpParserError):  # a TimeoutError is an OSError
            self._unreachable.add()
            return answer.started  # if so, the connection ends without the rest of it
        finally:
            if writer is not None:
                writer.transport.abort()
        return True

    def upgrade(
        self,
        transport: asyncio.Transport,
        handshake: Handshake,
        head: tuple[bytes, Headers],
        owner: Address,
        refuse: Callable[[], None],
    ) -> None:
        """Give a connection whose first request asks for a WebSocket to the worker that is asked for it.

        Args:
            transport: the client's; it has another protocol from now on.
            handshake: the request.
            head: its target and header fields, as they were sent.
            owner: that worker.
            refuse: called if it cannot be reached.
        """
        transport.pause_reading()
        waiting = _Waiting(transport, self._header(handshake.address, handshake.secure) + _head(b"GET", *head))
        transport.set_protocol(waiting)
        task = asyncio.get_running_loop().create_task(self._relay(transport, waiting, owner, refuse))
        waiting.task = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _relay(
        self, transport: asyncio.Transport, waiting: _Waiting, owner: Address, refuse: Callable[[], None]
    ) -> None:
        relay = Relay(self._relays.discard)
        sent = b""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await relay.connect(*owner)
            async with asyncio.timeout(SIGN_TIMEOUT):
                sent = waiting.beginning
                await relay.ask(sent)
        except OSError:
            relay.abort()
            self._unreachable.add()
            refuse()
        except asyncio.CancelledError:
            relay.abort()
            transport.abort()
            raise
        else:
            self._relays.add(relay)
            relay.adopt(transport, waiting.beginning[len(sent) :])

    def close(self) -> None:
        """End the WebSockets that are forwarded; polling requests end by themselves."""
        for task in self._connecting:
            task.cancel()
        for relay in tuple(self._relays):
            relay.close()
        self._too_many.close()
        self._unreachable.close()

    def _header(self, client: Address | None, secure: bool) -> bytes:
        return proxy_protocol.encode(client or ("", 0), ("", 0), tls=secure, key=self._key, forwarded=True)


class _Waiting(asyncio.Protocol):
    """A client's connection while that to its worker is being made."""

    task: asyncio.Task[None]

    def __init__(self, transport: asyncio.Transport, beginning: bytes) -> None:
        self._transport = transport
        self.beginning = beginning
        """What the worker is sent first."""

    def data_received(self, data: bytes) -> None:
        """Keep what had been read behind the request before reading was paused."""
        self.beginning += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up."""
        end_for_all(self._transport)
        self.task.cancel()


class _Answer:
    """What a worker answers; the parser's callbacks."""

    def __init__(self) -> None:
        self.started = False
        """Has the client been sent a part of it?"""
        self.complete = False
        self.parser: Any = httptools.HttpResponseParser(self)
        self._interim = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._has_head = False
        self._body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if (lower := name.lower()) not in _NOT_PASSED_BACK:
            self._headers.append((lower, value))

    def on_headers_complete(self) -> None:
        self._interim = self.parser.get_status_code() < 200
        self._has_head = not self._interim
        if self._interim:
            self._headers.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = not self._interim

    async def pass_on(self, send: Send) -> None:
        """Send what has been parsed and not been sent."""
        if not self._has_head:
            return
        if not self.started:
            self.started = True
            await send(
                {"type": "http.response.start", "status": self.parser.get_status_code(), "headers": self._headers}
            )
        body, self._body = b"".join(self._body), []
        await send({"type": "http.response.body", "body": body, "more_body": not self.complete})


def _head(method: bytes, target: bytes, headers: Headers) -> bytes:
    fields = [b"%s: %s" % field for field in headers]
    return b"\r\n".join((b"%s %s HTTP/1.1" % (method, target), *fields, b"\r\n"))
