"""Framed streams of workers, served as those of gRPC are: for channels, whose messages are not to wait for gRPC."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.message import DecodeError

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.entrance import BACKLOG, Entrance, listening_socket
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_runtime.tls.stream_tls import server_context
from socketcluster_store_client.streams.framed_dialing import STREAM_SUFFIX, reason_of

log = get_logger(__name__)

TICKET_BYTES = 32
TICKET_TIME = 15.0
"""Seconds for which a ticket is good, and in which a connection has to show one."""
MAX_TICKETS = 10_000
"""Tickets that were given and not shown."""
READ_AHEAD = 4 * 1024 * 1024
"""Bytes of requests that may wait to be applied before no more is read."""

Serve = Callable[[Any, Any], Coroutine[Any, Any, None]]
"""``StoreServicer.Link``."""
Request = store_pb2.LinkRequest | Coroutine[Any, Any, None]
"""A request, or what is left to be waited for of one that was begun when it came."""


class AbortedError(Exception):
    """A stream was ended by whoever served it."""


class Tickets:
    """Lets connections in of whom the store has heard by gRPC that they know the secret."""

    def __init__(self) -> None:
        self._given: OrderedDict[bytes, float] = OrderedDict()  # when their time is over

    def give(self) -> bytes:
        """Return one that is good once."""
        now = asyncio.get_running_loop().time()
        given = self._given
        while given and (len(given) >= MAX_TICKETS or next(iter(given.values())) < now):
            given.popitem(last=False)
        ticket = secrets.token_bytes(TICKET_BYTES)
        given[ticket] = now + TICKET_TIME
        return ticket

    def take(self, ticket: bytes) -> bool:
        """Is this one good? Then it was."""
        return self._given.pop(ticket, 0.0) > asyncio.get_running_loop().time()


class StreamServer:
    """Listens for framed streams.

    Args:
        serve: serves a stream, as gRPC would have it done.
        tls: what streams from other machines are secured with.
        room: told when there is no descriptor for a stream.
    """

    def __init__(self, serve: Serve, tls: RpcTls | None, room: Room) -> None:
        self.tickets = Tickets()
        self.port = 0
        """0: it listens on a Unix socket."""
        self._serve = serve
        self._tls = tls
        self._room = room
        self._entrance: Entrance | None = None
        self._socket_file: tuple[Path, int | None] | None = None  # and its inode
        self._calls: set[StreamCall] = set()

    async def listen(self, address: str) -> None:
        """Listen on ``host:port``, or ``unix:/path``, whose socket file is replaced if nobody listens there any more.

        Raises:
            AddressInUseError: somebody else listens there, or this process may not.
        """
        context = None
        try:
            if rpc.is_local(address):
                path = Path(address.removeprefix("unix:"))
                bound = _bind_path(path)
                self._socket_file = path, _inode(path)
            else:
                host, port = split_host_port(address, any_port=True)
                if host == "0.0.0.0" and socket.has_dualstack_ipv6():  # noqa: S104  # compared: it is what was asked for
                    host = "::"  # gRPC takes it so
                bound = listening_socket(host, port)
                self.port = bound.getsockname()[1]
                context = None if self._tls is None else server_context(self._tls)
        except OSError as error:
            raise AddressInUseError(f"cannot listen on {address}: {error.strerror or error}") from None
        self._entrance = Entrance(bound, self._accepted, self._room, context=context, patience=TICKET_TIME)

    async def close(self) -> None:
        """Listen no more, and end what is left of streams."""
        if self._entrance is not None:
            self._entrance.close()
        while self._calls:
            for call in tuple(self._calls):
                call.stream.abort()
            await asyncio.wait([call.gone for call in self._calls])
        if self._socket_file is not None:
            path, inode = self._socket_file
            if _inode(path) == inode:  # else it is another store's by now
                path.unlink(missing_ok=True)

    def _accepted(self) -> FramedStream:
        call = StreamCall(self._serve, self._let_in, self._left)
        self._calls.add(call)
        call.gone.add_done_callback(lambda _: self._calls.discard(call))
        return call.stream

    def _let_in(self, call: StreamCall, ticket: bytes) -> bool:
        if not self.tickets.take(ticket):
            return False
        if self._entrance is not None:
            self._entrance.known(call.stream)
        return True

    def _left(self, call: StreamCall) -> None:
        if self._entrance is not None:
            self._entrance.left(call.stream)


class StreamCall:
    """A stream: the requests that come on it, and what is to gRPC's handlers their context.

    Args:
        serve: serves it.
        let_in: is given what is shown as a ticket; is it one?
        left: is told when nothing comes any more.
    """

    def __init__(
        self, serve: Serve, let_in: Callable[[StreamCall, bytes], bool], left: Callable[[StreamCall], None]
    ) -> None:
        self.stream = FramedStream(self._first, self._ended, self._lost, max_bytes=TICKET_BYTES)
        self.begin: Callable[[store_pb2.LinkRequest], Request | None] | None = None
        """Begins a request that comes while the one before is done; returns what is to wait for its turn, if anything.
        """
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed, and nobody serves it any more."""
        self._serve = serve
        self._let_in = let_in
        self._left = left
        self._task: asyncio.Task[None] | None = None
        self._is_lost = False
        self._requests: deque[tuple[Request, int]] = deque()  # with the bytes of each
        self._waiting = 0  # bytes of them
        self._news: asyncio.Future[None] | None = None  # while the next one is waited for
        self._patience = loop.call_later(TICKET_TIME, self.stream.abort)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        """Wait for the next request."""
        while not self._requests:
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        request, size = self._requests.popleft()
        before = self._waiting
        self._waiting -= size
        if before > READ_AHEAD >= self._waiting:
            self.stream.resume_reading()
        return request

    def peer(self) -> str:
        """Say where the stream comes from, as gRPC does."""
        return self.stream.peer

    async def write(self, reply: bytes) -> None:
        """Send a reply, as soon as not too much waits to be sent."""
        while (writable := self.stream.writable) is not None:
            await writable
        self.stream.send(reply)

    async def abort(self, status: grpc.StatusCode, details: str) -> NoReturn:
        """End the stream, and tell why."""
        self.stream.end(reason_of(status, details))
        raise AbortedError(details)

    def _first(self, message: bytes) -> None:
        """Let the worker in that shows a ticket."""
        if not self._let_in(self, message):
            self.stream.end(reason_of(grpc.StatusCode.UNAUTHENTICATED, "a stream begins with the ticket of a hello"))
            return
        self._patience.cancel()
        self.stream.received = self._received
        self.stream.max_bytes = rpc.MAX_MESSAGE_BYTES
        self._task = asyncio.create_task(self._serve(self, self))
        self._task.add_done_callback(self._served)

    def _received(self, message: bytes) -> None:
        try:
            request = store_pb2.LinkRequest.FromString(message)
        except DecodeError:
            self.stream.end(reason_of(grpc.StatusCode.INVALID_ARGUMENT, "that is no request"))
            return
        waiting: Request = request
        if self.begin is not None and not self._requests and self._news is not None and not self._news.done():
            if (left := self.begin(request)) is None:
                return
            waiting = left
        self._requests.append((waiting, len(message)))
        self._waiting += len(message)
        if self._waiting > READ_AHEAD:
            self.stream.pause_reading()
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _ended(self, _reason: bytes | None) -> None:
        self._patience.cancel()
        self._left(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _lost(self) -> None:
        self._is_lost = True
        self._settle()

    def _served(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, AbortedError):
            log.error("a stream failed", exc_info=error)
        self.stream.end(reason_of(grpc.StatusCode.OK, ""))
        self._settle()

    def _settle(self) -> None:
        is_served = self._task is None or self._task.done()
        if self._is_lost and is_served and not self.gone.done():
            self.gone.set_result(None)


def stream_address(listen: str) -> str:
    """Return where streams are served beside gRPC: at the next port, any free one if that is so, or beside the path."""
    if rpc.is_local(listen):
        return listen + STREAM_SUFFIX
    host, port = listen.rpartition(":")[0], split_host_port(listen, any_port=True)[1]
    return f"{host}:{port + 1 if 0 < port < 65_535 else 0}"


def _bind_path(path: Path) -> socket.socket:
    """Return a socket bound to a path; the file of a process that ended without a word is removed.

    Raises:
        OSError: there is somebody, or something that is no socket.
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as asked:
            asked.setblocking(False)
            try:
                asked.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:  # somebody who does not accept just now
                pass
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
